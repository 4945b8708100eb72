import pickle

import cv2
import numpy as np
import pytest

from coopmap.data.opv2v import CorruptFrameError, MetadataError, MissingFileError, read_image, read_images
from coopmap.data.opv2v.quick_png import quick_rgb


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)  # RGB
    path = tmp_path / "000001_camera0.png"
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return path, pixels


def test_images_are_rgb(image):
    path, pixels = image
    np.testing.assert_array_equal(read_image(path, (30, 40)), pixels)
    np.testing.assert_array_equal(read_images([path, path], (30, 40)), np.stack([pixels, pixels]))


@pytest.mark.parametrize("missing_bytes", [1, 12, 13, 500, 3000])
def test_truncated_image_is_not_read_in_part(image, missing_bytes):
    path, _ = image
    path.write_bytes(path.read_bytes()[:-missing_bytes])
    with pytest.raises(CorruptFrameError, match=f"{path}: the PNG is truncated after"):
        read_image(path)


def test_flipped_bit(image):
    path, _ = image
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFrameError, match=f"{path}: the PNG is damaged: wrong checksum of chunk b'IDAT'"):
        read_image(path)


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (b"\xff\xd8\xff\xe0 a photo", "not a PNG")])
def test_other_content(tmp_path, data, reason):
    path = tmp_path / "000001_camera0.png"
    path.write_bytes(data)
    with pytest.raises(CorruptFrameError, match=f"{path}.*{reason}"):
        read_image(path)


def test_missing_image_error_survives_pickling(tmp_path):
    path = tmp_path / "000001_camera3.png"
    with pytest.raises(MissingFileError) as caught:
        read_image(path)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is MissingFileError
    assert str(copy) == str(caught.value) == f"{path}: no such file. Unpack the missing part of the dataset"


def test_size_differs_from_the_calibration(image):
    path, _ = image
    with pytest.raises(MetadataError, match=f"{path}: the file is 30 x 40 .* its calibration is for 600 x 800"):
        read_image(path, (600, 800))


def test_what_the_quick_decoder_leaves_to_opencv_is_read_alike(image, tmp_path):
    path, pixels = image
    data = path.read_bytes()
    np.testing.assert_array_equal(quick_rgb(data, (30, 40)), pixels)
    with_alpha = np.dstack([pixels[..., ::-1], pixels[..., :1]])
    assert cv2.imwrite(str(tmp_path / "alpha.png"), with_alpha)
    assert quick_rgb((tmp_path / "alpha.png").read_bytes(), (30, 40)) is None
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), pixels)
    assert quick_rgb(data + b" ", (30, 40)) is None
    path.write_bytes(data + b" ")
    np.testing.assert_array_equal(read_image(path), pixels)


def test_the_quick_decoder_gives_whole_images_or_none(image):
    path, pixels = image
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.integers(8, len(data))] ^= 1 << rng.integers(8)
        read = quick_rgb(bytes(damaged), (30, 40))
        assert read is None or np.array_equal(read, pixels)
