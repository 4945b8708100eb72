"""What a pickle of a few bytes can make its reader spend."""

import pickle
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from coopmap.models.torchfile import TorchFile

DOUBLING = b"\x80\x02)q\x00" + b"0h\x00h\x00\x86q\x00" * 60
"""A tuple that holds one tuple twice, and so on for 60 levels."""
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu%stQ."


def archive(file: Path, pickled: bytes, storage: bytes = b"") -> Path:
    with zipfile.ZipFile(file, "w") as stream:
        stream.writestr("bad/data.pkl", pickled)
        stream.writestr("bad/data/0", storage)
    return file


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"\x80\x02]r\x00\x00\x00\x10.", None),  # memo index 2^28: 4 GB in the unpickler written in C
        (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".", "operation that torch.save does not"),
        (b"\x80\x02\x8b" + (10**6).to_bytes(4, "little") + bytes(10**6) + b".", "integer of 1000000 bytes"),
        (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "nested more than 64 levels"),
        (b"\x80\x02]q\x00h\x00a.", "container within itself"),
        (DOUBLING + b".", "more than 5000000 values"),
        (b"\x80\x02}" + DOUBLING[2:] + b"Ns.", "a tuple as a dictionary key"),
        (b"\x80\x04\x8f(" + DOUBLING[2:] + b"\x90.", "a tuple as a dictionary key or member of a set"),
        (b"\x80\x02ccollections\nOrderedDict\n]" + DOUBLING[2:] + b"N\x86a\x85R.", "a tuple as a dictionary key"),
        (b"\x80\x02" + STORAGE % b"J\xff\xff\xff\x7f", "fewer than 2.15e\\+09 values of tensor 0"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\x00)\x29tR.", "by something other than numbers"),
        (b"\x80\x02K\x05Q.", "refers to a int that is no tensor storage"),
        (b"\x80\x02h\x07.", "Memo value not found|cannot be read"),
        (b"\x80\x020.", "cannot be read safely"),  # IndexError within the unpickler
        (b"", "cannot be read safely"),
    ],
)
def test_hostile_pickles_are_refused_in_no_time(pickled: bytes, message: str | None, tmp_path: Path) -> None:
    file = archive(tmp_path / "bad.pth", pickled, bytes(16))
    tracemalloc.start()
    began = time.perf_counter()
    try:
        if message is None:
            assert TorchFile(file).content == []
        else:
            with pytest.raises(ValueError, match=r"bad\.pth: its pickle cannot be read safely: .") as caught:
                TorchFile(file)
            caught.match(message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - began < 5
    assert peak < 50e6


def test_a_compressed_pickle_is_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.pth", "w", zipfile.ZIP_DEFLATED) as stream:
        stream.writestr("bad/data.pkl", b"\x80\x02" + b"N0" * 10_000_000 + b"N.")
    with pytest.raises(ValueError, match="compressed or too large"):
        TorchFile(tmp_path / "bad.pth")


def test_keys_of_numbers_and_short_tuples_are_read(tmp_path: Path) -> None:
    content = {1: "a", (1, "b"): [2], None: {3, 4}, "set": frozenset({5})}
    file = archive(tmp_path / "good.pth", pickle.dumps(content, protocol=4))
    assert TorchFile(file).content == content
