"""Whatever a file holds, its reader names it and says what is wrong, in little memory."""

import codecs
import json
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import yaml

from coopmap.data.opv2v import (
    CorruptFrameError,
    FrameError,
    MissingFileError,
    images,
    quick_png,
    read_agent,
    read_image,
)
from coopmap.data.opv2v.depth import _read_carla_png
from coopmap.data.opv2v.npy import read_npy
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.data.pose_table import read_lidar_pose

from .conftest import write_pcd

READERS: dict[str, Callable[[Path], object]] = {
    "000001.yaml": read_agent,
    "000001_camera0.png": read_image,
    "000001_camera0.jpg": read_image,
    "000001_camera0_depth.npy": read_npy,
    "000001_depth0.png": _read_carla_png,
    "000001.pcd": read_sweep,
}


LITTLE_BYTES = 1 << 25
"""What is damaged takes no more; modules that its reader imports included."""


@pytest.fixture(params=READERS, ids=lambda name: name.partition("000001")[2])
def reader(request, tmp_path) -> tuple[Path, Callable[[Path], object]]:
    return tmp_path / request.param, READERS[request.param]


def refused(read: Callable[[Path], object], path: Path, message: str) -> FrameError:
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match=message) as caught:
            read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < LITTLE_BYTES
    assert caught.value.path == path
    return caught.value


def test_a_named_pipe(reader):
    path, read = reader
    os.mkfifo(path)
    refused(read, path, "is a named pipe, expected a file")


def test_a_link_to_itself(reader):
    path, read = reader
    path.symlink_to(path)
    refused(read, path, "link that leads back to itself")


def test_a_link_to_nothing(reader):
    path, read = reader
    path.symlink_to(path.with_name("gone"))
    if read is not read_npy:
        refused(read, path, "is a link to .*gone, which is not there")


def test_a_folder(reader):
    path, read = reader
    path.mkdir()
    refused(read, path, "is a folder, expected a file")


def test_a_pointer_of_git_lfs(reader):
    path, read = reader
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n")
    assert "Git LFS" in str(refused(read, path, "LFS|not a readable"))


@pytest.mark.parametrize("error", [MemoryError(), cv2.error("Insufficient memory")])
def test_a_process_without_memory_blames_no_file(writer, monkeypatch, error):
    path = writer.agent("s", "1", "000001").with_name("000001_camera0.png")
    error.code = cv2.Error.StsNoMem

    def decode(*_):
        raise error

    monkeypatch.setattr(images, "quick_rgb", lambda *_: None)
    monkeypatch.setattr(cv2, "imdecode", decode)
    with pytest.raises(MemoryError):
        read_image(path)


def test_a_quick_decoder_without_memory_blames_no_file(writer, monkeypatch):
    path = writer.agent("s", "1", "000001").with_name("000001_camera0.png")
    monkeypatch.setattr(quick_png, "decode_image_png_u8", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"\xff\xfe\0", b"\x80\x04K\x01.", b"PK\x03\x04" + b"x" * 99])
def test_other_content(reader, content):
    path, read = reader
    path.write_bytes(content)
    refused(read, path, ".")


def test_a_file_of_terabytes(reader):
    path, read = reader
    path.touch()
    os.truncate(path, 10**12)  # sparse
    refused(read, path, "has 1,000,000,000,000 bytes, expected at most")


def test_a_file_that_may_not_be_read(reader):
    path, read = reader
    path.touch(0o000)
    if not os.access(path, os.R_OK):  # not for root
        refused(read, path, "permission denied")


def test_a_name_that_is_not_utf8_is_shown(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.yaml"))
    error = refused(read_agent, path, "no such file")
    str(error).encode()
    assert "udcff" in str(error)


# YAML: text of a file, and what the error says

BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(9)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} {{<<: [{', '.join([f'*{chr(97 + n)}'] * 10)}]}}\n" for n in range(9)
)
YAMLS = {
    "date": ("lidar_pose: 2021-08-16\n", "'lidar_pose' must hold .*2021"),
    "impossible date": ("lidar_pose: 2021-99-99\n", "not a readable YAML file.*month"),
    "400 digits": (f"lidar_pose: [{'9' * 400}, 0, 0, 0, 0, 0]\n", "'lidar_pose' must hold"),
    "5000 digits": (f"lidar_pose: [{'9' * 5000}, 0, 0, 0, 0, 0]\n", "not a readable YAML file.*digits"),
    "huge hexadecimal": (f"lidar_pose: [0x{'f' * 50000}, 0, 0, 0, 0, 0]\n", "'lidar_pose' must hold"),
    "long scalar": (f"lidar_pose: [{'9:' * 100000}9]\n", "a value of more than 4096 characters"),
    "aliases": (BOMB, "aliases stand for more than"),
    "merges": (MERGES, "aliases stand for more than"),
    "recursive": ("lidar_pose: &a [*a, *a]\n", "stands for something that contains it"),
    "brackets": ("lidar_pose: " + "[" * 100_000, "nested more than 64-fold"),
    "dashes": ("lidar_pose:\n  " + "- " * 100_000, "nested more than 64-fold"),
    "questions": ("? " * 100_000, "nested more than 64-fold"),
    "braces": ("{a: " * 100_000, "nested more than 64-fold|a value of"),
    "indentation": ("".join(" " * n + f"k{n}:\n" for n in range(900)), "nested more than 64-fold"),
    "json nesting": ('{"lidar_pose": ' + "[" * 100_000, "nested more than 64-fold"),
    "nan": ("lidar_pose: [.nan, 0, 0, 0, 0, 0]\n", "finite"),
    "absurd": ("lidar_pose: [1.0e+300, 0, 0, 0, 0, 0]\n", "in meters and three angles in degrees"),
    "digits of another script": ("lidar_pose: ['١', 0, 0, 0, 0, 0]\n", "'lidar_pose' must hold"),  # noqa: RUF001
    "no list": ("lidar_pose: {x: 1}\n", "'lidar_pose' must hold"),
    "ragged": ("lidar_pose: [[1, 2], 3]\n", "'lidar_pose' must hold"),
    "sheared matrix": ("lidar_pose: [[1,1,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]\n", "no rigid motion"),
    "mirrored matrix": ("lidar_pose: [[-1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]\n", "no rigid motion"),
    "two documents": ("lidar_pose: 1\n---\nlidar_pose: 2\n", "not valid YAML"),
    "control characters": ("lidar_pose: \x01\x02\n", "not valid YAML"),
    "UTF-16 without mark": ("lidar_pose: 1".encode("utf-16-le"), "UTF-16 without its mark.*UTF-8"),
    "a list": ("- 1\n- 2\n", "holds no YAML mapping .holds a list"),
}


@pytest.mark.parametrize("kind", YAMLS)
def test_odd_yaml(tmp_path, kind):
    content, message = YAMLS[kind]
    path = tmp_path / "000001.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(read_agent, path, message)
    refused(read_lidar_pose, path, ".")


def test_a_tag_of_numpy_is_named_with_file_and_key_and_how_to_write_it_again(writer):
    path = writer.agent("s", "1", "000001")
    content = yaml.safe_load(path.read_text())
    content["camera0"]["cords"][2] = np.float64(1.0)
    path.write_text(yaml.dump(content))
    error = refused(read_agent, path, r"key 'camera0\.cords' holds a value of the tag !!python/object/apply:numpy")
    assert "yaml.safe_dump" in str(error)


def test_a_tag_where_nobody_looks_costs_nothing(writer):
    path = writer.agent("s", "1", "000001")
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.dump(content | {"plan_trajectory": [np.float64(1.0)]}))
    read_agent(path)


def test_only_a_file_that_ends_early_is_to_be_copied_again(tmp_path):
    path = tmp_path / "000001.yaml"
    path.write_text("lidar_pose: [1.0, 2.0,")
    assert "Copy or unpack" in str(refused(read_agent, path, "cut off"))
    path.write_text("lidar_pose: [1.0, 2.0\nego_speed: }\n" + "a: 1\n" * 20)
    assert "Copy or unpack" not in str(refused(read_agent, path, "not valid YAML near line 2"))


def as_matrices(content: dict) -> dict:
    from coopmap.geometry import pose_from_carla

    changed = {key: pose_from_carla(content[key]).tolist() for key in ("lidar_pose", "true_ego_pos")}
    cameras = {
        key: value | {"cords": pose_from_carla(value["cords"]).tolist()}
        for key, value in content.items()
        if key.startswith("camera")
    }
    return content | changed | cameras


def tuples(content: dict) -> dict:
    return content | {"lidar_pose": tuple(content["lidar_pose"]), "camera0": content["camera0"] | {
        "intrinsic": tuple(map(tuple, content["camera0"]["intrinsic"]))}}  # fmt: skip


HARMLESS = {
    "python tuples": lambda content: yaml.dump(tuples(content)).encode(),
    "JSON": lambda content: json.dumps(content).encode(),
    "JSON with tabs": lambda content: json.dumps(content, indent="\t").encode(),
    "compact JSON": lambda content: json.dumps(content, separators=(",", ":")).encode(),
    "byte order mark": lambda content: codecs.BOM_UTF8 + yaml.safe_dump(content).encode(),
    "UTF-16": lambda content: yaml.safe_dump(content).encode("utf-16"),
    "matrices": lambda content: yaml.safe_dump(as_matrices(content)).encode(),
    "Windows line ends": lambda content: yaml.safe_dump(content).replace("\n", "\r\n").encode(),
    "aliases": lambda content: yaml.safe_dump(content | {"predicted_ego_pos": content["true_ego_pos"]}).encode(),
    "numbers as text": lambda content: yaml.safe_dump(
        content | {"lidar_pose": [str(value) for value in content["lidar_pose"]]}
    ).encode(),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_variants_are_read_alike(writer, kind):
    vehicle = {"angle": [0, 9, 0], "center": [0, 0, 1], "extent": [2, 1, 1], "location": [9, 9, 0], "speed": 3.0}
    path = writer.agent("s", "1", "000001", (12.0, -3.0, 2.0, 0.0, 40.0, 1.0), vehicles={77: vehicle})
    expected, content = read_agent(path), yaml.safe_load(path.read_text())
    path.write_bytes(HARMLESS[kind](content))
    for with_vehicles in (True, False):
        agent = read_agent(path, with_vehicles)
        np.testing.assert_allclose(agent.pose, expected.pose, atol=1e-9)
        np.testing.assert_allclose(agent.rig.agent_from_camera, expected.rig.agent_from_camera, atol=1e-9)
        np.testing.assert_array_equal(agent.rig.intrinsics, expected.rig.intrinsics)
    assert read_agent(path).vehicles.ids.tolist() == [77]
    np.testing.assert_allclose(read_lidar_pose(path), content["lidar_pose"], atol=1e-9)


def test_what_is_not_used_is_not_required(writer):
    path = writer.agent("s", "1", "000001")
    content = yaml.safe_load(path.read_text())
    for key in ("ego_speed", "predicted_ego_pos", "vehicles"):
        del content[key]
    path.write_text(yaml.safe_dump(content))
    agent = read_agent(path)
    assert agent.vehicles is None
    assert np.isnan(agent.speed)
    assert np.isnan(agent.pose_prior).all()
    assert np.isfinite(agent.pose).all()


# Images


def png(width: int, height: int) -> bytes:
    """A PNG whose header announces a size, with a row of data and right checksums."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(10**6, 10**6), (2**31 - 1, 1), (0, 60), (50_000, 50_000)])
@pytest.mark.parametrize("read", [read_image, _read_carla_png])
def test_a_png_that_announces_too_much_is_refused_before_decoding(tmp_path, size, read):
    path = tmp_path / "a.png"
    path.write_bytes(png(*size))
    refused(read, path, "announces .* pixels, expected at most")


def test_another_size_is_told_before_decoding(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png(4000, 4000))
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(FrameError, match="the file is 4000 x 4000"):
        read_image(path, (60, 80))


def test_a_jpeg_in_place_of_a_png_is_read(writer):
    yaml_path = writer.agent("s", "1", "000001")
    path = yaml_path.with_name("000001_camera0.png")
    expected = read_image(path)
    cv2.imwrite(str(path.with_suffix(".jpg")), cv2.imread(str(path)))
    path.unlink()
    assert np.abs(read_image(path).astype(int) - expected).max() < 6
    assert read_agent(yaml_path).rig.image_size == (60, 80)
    path.with_suffix(".jpg").write_bytes(path.with_suffix(".jpg").read_bytes()[:-20])
    refused_at = pytest.raises(CorruptFrameError, match=r"camera0\.jpg: the JPEG is truncated")
    with refused_at:
        read_image(path)


def test_the_image_says_its_size_and_a_principal_point_may_be_off_center(writer):
    path = writer.agent("s", "1", "000001")
    content = yaml.safe_load(path.read_text())
    content["camera0"]["intrinsic"][0][2] += 0.3
    content["camera2"]["intrinsic"][1][2] -= 0.8
    path.write_text(yaml.safe_dump(content))
    assert read_agent(path).rig.image_size == (60, 80)
    for image in path.parent.glob("*.png"):
        image.unlink()
    assert read_agent(path).rig.image_size == (60, 81)  # nothing else to go by


@pytest.mark.parametrize("cx", [1e9, 1e300, -40.0, 0.0])
def test_an_absurd_principal_point(writer, cx):
    path = writer.agent("s", "1", "000001")
    content = yaml.safe_load(path.read_text())
    for number in range(4):
        content[f"camera{number}"]["intrinsic"][0][2] = cx
    path.write_text(yaml.safe_dump(content))
    refused(read_agent, path, "the principal points")


# Arrays


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + data


NPYS = {
    "huge": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"), "announced"),
    "overflow": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }"), "announced"),
    "objects": (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"\x80\x04N."), "holds Python objects"),
    "structured": (
        npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", b"1234"),
        "expected meters",
    ),
    "no header": (npy("{'descr': (((((((", b""), "header is damaged"),
    "unbalanced": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,"), "header is damaged"),
    "long": (npy("{'descr': '<f4', " + " " * 60_000), "header is damaged"),
    "negative": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"), "header is damaged"),
    "too much": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", b"12345"), "5 bytes of values, 4"),
    "short": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", b"1234"), "truncated"),
}


@pytest.mark.parametrize("kind", NPYS)
def test_odd_npy(tmp_path, kind):
    content, message = NPYS[kind]
    path = tmp_path / "depth.npy"
    path.write_bytes(content)
    refused(read_npy, path, message)


def test_an_archive_under_the_name_of_an_array(tmp_path):
    np.savez(tmp_path / "a.npz", np.zeros((2, 2), np.float32))
    path = (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    refused(read_npy, path, "it is an .npz archive")


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_floats_are_read_as_numpy_reads_them(tmp_path, dtype, order):
    path = tmp_path / "a.npy"
    np.save(path, np.asarray(np.arange(6).reshape(2, 3), dtype, order=order))
    np.testing.assert_array_equal(read_npy(path), np.load(path))


# Sweeps

PCDS = {
    "count": ("COUNT 1 1 1 1", "COUNT 1 1 1 1000000000", "COUNT .* at most"),
    "points": ("POINTS 3", "POINTS 999999999999", "POINTS"),
    "width": ("WIDTH 3", "WIDTH 7", "POINTS 3, but WIDTH 7"),
    "sizes": ("SIZE 4 4 4 4", "SIZE 4 4 4", "SIZE"),
    "type": ("TYPE F F F F", "TYPE F F F Q", "TYPE"),
    "digits": ("POINTS 3", "POINTS ٣", "its header is cut off, or none"),
    "no axes": ("FIELDS x y z rgb", "FIELDS a b c d", "x y z among them"),
    "data": ("DATA ascii", "DATA binary_zstd", "DATA binary_zstd"),
    "binary": ("DATA ascii", "DATA binary", None),
    "compressed": ("DATA ascii", "DATA binary_compressed", "truncated or damaged"),
    "missing": ("POINTS 3", "POINTS 4", "POINTS 4, but WIDTH 3"),
}


@pytest.mark.parametrize("kind", PCDS)
def test_odd_pcd(tmp_path, kind):
    before, after, message = PCDS[kind]
    path = tmp_path / "000001.pcd"
    write_pcd(path, np.arange(9.0).reshape(3, 3))
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    if message is not None:
        refused(read_sweep, path, message)


def test_what_did_not_return_is_no_point(tmp_path):
    path = tmp_path / "000001.pcd"
    write_pcd(path, np.array([[1.0, 2, 3], [0, 0, 0], [np.nan, 1, 1], [1e30, 0, 0], [0, -0.0, 0], [4, 5, 6]]))
    np.testing.assert_allclose(read_sweep(path), [[2, -3, 1], [5, -6, 4]])


def test_missing_files_are_missing(reader):
    path, read = reader
    with pytest.raises(MissingFileError, match="no such"):
        read(path)
