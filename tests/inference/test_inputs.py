import logging
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from coopmap import build_dataset
from coopmap.config import Config, ConfigError
from coopmap.config.cache import CacheConfig
from coopmap.config.data import MosaicConfig
from coopmap.config.synth import TownConfig
from coopmap.data.cache.command import fill_cache
from coopmap.data.opv2v import DataError
from coopmap.data.views import IMAGE_MEAN, IMAGE_STD
from coopmap.inference import read_frame, read_images_of_folder
from coopmap.inference.inputs import fit_image


def write(file: Path, image: np.ndarray) -> Path:
    """An RGB image."""
    assert cv2.imwrite(str(file), image[..., ::-1])
    return file


def plain(height: int, width: int, color: tuple[int, int, int] = (200, 100, 50)) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


@pytest.fixture
def warnings_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("coopmap"), "propagate", True)
    caplog.set_level(logging.WARNING)
    return caplog


def test_natural_order_and_colors(tmp_path: Path):
    for name, red in (("view10.png", 30), ("View2.png", 20), ("view1.jpg", 10)):
        write(tmp_path / name, plain(60, 80, (red, 100, 250)))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    views = read_images_of_folder(tmp_path, size=84)
    assert views.names == ("view1.jpg", "View2.png", "view10.png")
    assert views.images.shape == (3, 56, 84, 3)  # 63 rows would be square; 56 are the nearest whole patches
    np.testing.assert_allclose(views.images.mean((1, 2)), [[10, 100, 250], [20, 100, 250], [30, 100, 250]], atol=2)
    observation = views.observation
    assert observation.images.shape == (3, 3, 56, 84)
    expected = ((np.array([30, 100, 250]) / 255 - IMAGE_MEAN) / IMAGE_STD).astype(np.float32)
    torch.testing.assert_close(observation.images[2, :, 20, 20], torch.from_numpy(expected), rtol=0, atol=1e-5)
    assert not observation.rays_given.any()
    assert (observation.depth_prior, observation.pose_prior, views.true_pose) == (None, None, None)


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(300, 400, (392, 518)), (400, 300, (518, 392)), (500, 500, (518, 518))]
)
def test_longest_side_is_518(tmp_path: Path, height: int, width: int, expected: tuple[int, int]):
    write(tmp_path / "a.png", plain(height, width))
    assert read_images_of_folder(tmp_path).images.shape[1:3] == expected


def test_shrinking_does_not_alias():
    checkerboard = np.indices((280, 560)).sum(0) % 2 * 255
    image, _ = fit_image(np.repeat(checkerboard[..., None], 3, -1).astype(np.uint8), 28, 56)
    assert np.abs(image.astype(int) - 127.5).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(84, 112), (112, 84), (42, 140)])
def test_matrix_leads_back_to_the_file(height: int, width: int):
    """A smooth image whose red and green are the pixel coordinates of the file, over two."""
    v, u = np.indices((300, 400)) + 0.5
    source = np.stack([u / 2, v / 2, 0 * u], axis=-1)
    image, matrix = fit_image(np.rint(source).astype(np.uint8), height, width)
    rows, columns = np.indices((height, width))
    pixels = np.stack([columns + 0.5, rows + 0.5, np.ones((height, width))], axis=-1)
    expected = pixels @ matrix.T
    assert np.abs(2.0 * image[..., :2] - expected[..., :2])[2:-2, 2:-2].max() < 2.5
    center = matrix @ [width / 2, height / 2, 1]
    np.testing.assert_allclose(center[:2], [200, 150], atol=2.5)


def test_other_aspect_ratios_are_cropped_with_a_warning(tmp_path: Path, warnings_of: pytest.LogCaptureFixture):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.png", plain(90, 120))
    tall = plain(200, 100, (0, 0, 0))
    tall[70:130] = 255
    write(tmp_path / "c.png", tall)
    views = read_images_of_folder(tmp_path, size=112)
    assert views.images.shape == (3, 84, 112, 3)
    assert views.images[2].mean() > 200  # the middle is what remains
    assert "1 of 3 images are cropped around the center to the most common aspect ratio, 1.33:1: c.png" in (
        warnings_of.text
    )


def test_panoramas_are_never_cropped(tmp_path: Path, warnings_of: pytest.LogCaptureFixture):
    band = plain(100, 410, (0, 0, 0))
    band[:, 0] = band[:, -1] = 255
    write(tmp_path / "a.png", band)
    views = read_images_of_folder(tmp_path, "cyl", 336)
    assert (views.images.shape[1:3], views.camera_model) == ((84, 336), "cyl")
    assert views.images[0, :, [0, -1]].min() > 100
    assert "4.1 times as wide as high" in warnings_of.text
    write(tmp_path / "b.png", plain(100, 300))
    with pytest.raises(ConfigError, match=r"panoramas of different shapes \(b.png against width 4.1 x height\)"):
        read_images_of_folder(tmp_path, "cyl", 336)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_cut_off_images_are_named(tmp_path: Path, suffix: str):
    rng = np.random.default_rng(0)
    file = write(tmp_path / f"good{suffix}", rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    data = file.read_bytes()
    read_images_of_folder(tmp_path, size=56)
    for content, reason in ((data[: len(data) // 2], "truncated"), (b"", "empty"), (b"GIF89a...", "not a ")):
        file.write_bytes(content)
        with pytest.raises(DataError, match=f"good{suffix}: .*{reason}"):
            read_images_of_folder(tmp_path, size=56)


def test_folders_without_images(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"images=.*nowhere: there is no such folder"):
        read_images_of_folder(tmp_path / "nowhere")
    (tmp_path / "a.tif").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no image .* in this folder; it holds \.tif"):
        read_images_of_folder(tmp_path)


def test_what_a_folder_without_images_holds_is_said(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="it holds nothing; give a folder of images"):
        read_images_of_folder(tmp_path / "empty")
    (tmp_path / "drive 2").mkdir()
    file = write(tmp_path / "drive 2" / "a.png", plain(60, 80))
    expected = rf"it holds 2 folders \(drive 2, empty\), which are not searched; give images={tmp_path / 'drive 2'}"
    with pytest.raises(ConfigError, match=expected):
        read_images_of_folder(tmp_path)
    with pytest.raises(
        ConfigError, match=rf"this is a file; give the folder that holds the images, here {file.parent}"
    ):
        read_images_of_folder(file)


def test_a_cache_of_the_training_data_is_not_asked_for_other_frames(config: Config, frame: Path, tmp_path: Path):
    fill_cache(CacheConfig(cache_root=str(tmp_path / "cache"), splits=["val"], workers=1), config.data)
    views = read_frame(frame, replace(config.data, cache_root=str(tmp_path / "cache")))
    assert torch.equal(views.observation.images, read_frame(frame, config.data).observation.images)


def test_frame_is_what_the_dataset_gives(config: Config, town: TownConfig):
    dataset = build_dataset(config, "val")
    sample = dataset[0]
    path = Path(town.root, "validate", sample.meta.scenario, sample.meta.frame)
    views = read_frame(path, config.data)
    assert views.names == sample.meta.agents
    assert torch.equal(views.observation.images, sample.observation.images)
    assert torch.equal(views.observation.rays, sample.observation.rays)
    assert torch.equal(views.covered, sample.target.non_ambiguous)
    relative = torch.linalg.inv(sample.target.pose[0].double()) @ sample.target.pose.double()
    torch.testing.assert_close(views.true_pose.double(), relative, rtol=0, atol=1e-4)
    assert views.camera_model == "cyl"
    assert not views.observation.rays_given.any()
    assert read_frame(path, config.data, with_rays=True).observation.rays_given.all()
    assert views.observation.pose_prior is None
    shown = (sample.observation.images[0].permute(1, 2, 0).numpy() * IMAGE_STD + IMAGE_MEAN) * 255
    covered = views.covered[0].numpy()
    np.testing.assert_allclose(views.images[0][covered], shown[covered], atol=0.51)
    assert (views.images[0][~covered] == 0).all()


def test_agents_come_in_the_order_asked_for(config: Config, frame: Path):
    everybody = read_frame(frame, replace(config.data, communication_range_m=1e9)).names
    chosen = everybody[::-1]
    views = read_frame(frame, replace(config.data, max_agents=2, communication_range_m=1.0), chosen)
    assert views.names == chosen
    torch.testing.assert_close(views.true_pose[0], torch.eye(4), rtol=0, atol=1e-5)


def test_every_camera_a_view(config: Config, frame: Path):
    data = config.data
    data = replace(data, layout="cameras", cameras=replace(data.cameras, height=28, width=42))
    views = read_frame(frame, data, read_frame(frame, data).names[0].split()[:1])
    agent = views.names[0].split()[0]
    assert views.names == tuple(f"{agent} {slot}" for slot in ("front", "left", "rear", "right"))
    assert views.camera_model == "pinhole"
    assert views.images.shape == (4, 28, 42, 3)


@pytest.mark.parametrize("layout", ["grouped", "warped"])
def test_fused_cameras_are_shown_as_panoramas(config: Config, frame: Path, layout: str):
    views, stitched = (read_frame(frame, replace(config.data, layout=kind)) for kind in (layout, "panorama"))
    assert views.observation.images.ndim == 5
    np.testing.assert_array_equal(views.images, stitched.images)
    assert views.camera_model == "cyl"


def test_frames_that_are_not_there(config: Config, frame: Path):
    expected = r"'scenario' is not the folder of a split\. Expected frame=ROOT/{train,validate"
    with pytest.raises(DataError, match=expected):
        read_frame("/data/scenario/641/000069", config.data)
    with pytest.raises(DataError, match="there is no such scenario"):
        read_frame(frame.parent.with_name("nowhere") / frame.name, config.data)
    with pytest.raises(ConfigError, match=r"no agent of this scenario has a file 999999.yaml \(nearest: \d+\)"):
        read_frame(frame.with_name("999999"), config.data)
    with pytest.raises(ConfigError, match=r"agents=12345: no agent 12345 in this frame; there are \d+"):
        read_frame(frame, config.data, ["12345"])


def test_mosaics_are_read_as_they_are(config: Config, frame: Path):
    data = replace(config.data, layout="mosaic", mosaic=MosaicConfig(28, 42))
    views = read_frame(frame, data, with_rays=True)
    assert views.camera_model == "mosaic"
    assert views.images.shape[1:] == (28, 4 * 42, 3)
    assert views.observation.rays_given.all()
    assert views.observation.camera_pose.shape[1:] == (4, 4, 4)
    assert views.observation.depth_prior is None
    assert views.covered.all()
