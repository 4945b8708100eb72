import errno
import json
import math
from pathlib import Path

import numpy as np
import pytest

from coopmap.report.files import replacing, write_csv, write_json, write_npy, write_text


def fill_the_disk(file: Path) -> None:
    with replacing(file) as temporary:
        temporary.write_text("ha")
        assert temporary.parent == file.parent  # renaming across file systems would copy
        raise OSError("disk full")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write_text("old", file)
    with pytest.raises(OSError, match="disk full"):
        fill_the_disk(file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_is_named_whatever_of_the_writing_fails(tmp_path: Path) -> None:
    """``close`` of a buffered file raises an error without a name, in place of one that had it."""

    def write_to(file: Path, error: OSError) -> None:
        with replacing(file) as temporary:
            temporary.touch()
            raise error

    with pytest.raises(OSError, match=r"No space left on device: '.*last\.ckpt'$"):
        write_to(tmp_path / "last.ckpt", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match=r"^no network$"):
        write_to(tmp_path / "last.ckpt", OSError("no network"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_an_array_that_finds_no_room_is_named(tmp_path: Path) -> None:
    file = tmp_path / "depth.npy"
    write_npy(np.ones(3), file)
    np.testing.assert_array_equal(np.load(file), np.ones(3))
    file.unlink()
    file.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*depth\.npy'$"):
        write_npy(np.ones(3), file)


def test_folders_are_made_and_text_is_utf8(tmp_path: Path) -> None:
    write_text("3 ± 1", tmp_path / "a" / "b.md")
    assert (tmp_path / "a" / "b.md").read_bytes() == b"3 \xc2\xb1 1"


def test_json_has_no_numbers_that_other_readers_refuse(tmp_path: Path) -> None:
    write_json({"a": [1.5, math.nan, (math.inf, -math.inf)], "b": {"c": math.nan}}, tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"a": [1.5, None, [None, None]], "b": {"c": None}}
    assert "NaN" not in text


def test_csv_has_every_column_that_a_row_has(tmp_path: Path) -> None:
    write_csv([{"a": 1}, {"b": "x,y", "a": None}], tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == b'a,b\r\n1,\r\n,"x,y"\r\n'
