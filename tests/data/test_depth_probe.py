"""Depth files that hold something else than meters are named before anything is learned from them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from coopmap.config.data import DataConfig, DepthConfig
from coopmap.data.datamodule import build_split
from coopmap.data.opv2v import CorruptFrameError, DatasetLayoutError, SplitIndex, read_agent, select_depth_source
from coopmap.data.opv2v.depth import z_to_range
from coopmap.data.opv2v.gray_depth import GrayDepthError

Config = Callable[..., DataConfig]
Change = Callable[[np.ndarray], np.ndarray]
NPY = "{frame}_camera{camera}_depth.npy"
PNG = "{frame}_depth{camera}.png"


def carla_code(z: np.ndarray) -> np.ndarray:
    """Blue, green, red, as OpenCV writes them."""
    code = np.rint(z / 1000 * (256**3 - 1)).astype(np.int64)
    return np.stack([code // 65536, code // 256 % 256, code % 256], -1).astype(np.uint8)


def logarithm(z: np.ndarray) -> np.ndarray:
    return np.clip(1 + np.log(z / 1000) / 5.70378, 0, 1)


def known(change: Change) -> Change:
    """Change known depth alone."""
    return lambda z: np.where((z > 0) & (z < 1000), change(np.where(z > 0, z, 1)), z).astype(np.float32)


def gray(change: Change) -> Change:
    return lambda z: np.repeat(np.rint(change(np.clip(z, 0.1, 1000))).astype(np.uint8)[..., None], 3, axis=-1)


NUMBERS: dict[str, tuple[Change, str]] = {
    "millimeters": (known(lambda z: 1000 * z), r"in millimeters \(.* per meter\)"),
    "centimeters": (known(lambda z: 100 * z), r"in centimeters \(.* per meter\)"),
    "normalized": (known(lambda z: z / 200), r"normalized: 1 stands for \d+(\.\d)? m"),
    "disparity": (known(lambda z: 0.5 * 400 / z), "disparity"),
    "logarithm": (known(lambda z: 255 * logarithm(z)), "the logarithm of depth"),
}
IMAGES: dict[str, tuple[Change, str]] = {
    "swapped": (lambda z: carla_code(z)[..., ::-1], r"red and blue are swapped: then \d+%"),
    "logarithm": (gray(lambda z: 255 * logarithm(z)), "no 24-bit code.*the logarithm of depth"),
    "linear": (gray(lambda z: np.minimum(5 * z, 255)), r"no 24-bit code.*in 5(\.0\d*)? x meters"),
}


@pytest.fixture
def rewritten(config_of: Config, tmp_path: Path) -> Callable[..., DataConfig]:
    """Configuration of the town with other depth files, and without its sweeps if asked for."""

    def write(pattern: str, change: Change, lidar: bool = True, **changes) -> DataConfig:
        config = config_of(**changes)
        index = SplitIndex.build(config.root, "val")
        source = select_depth_source(index, config.depth_root)
        for ref in (index.frame(number) for number in range(len(index))):
            for agent in ref.agents:
                folder = tmp_path / "depth" / "validate" / ref.scenario / agent
                folder.mkdir(parents=True, exist_ok=True)
                for camera in range(4):
                    path = folder / pattern.format(frame=ref.frame, camera=camera)
                    z = change(source.stored(ref, agent, camera))
                    np.save(path, z) if pattern == NPY else cv2.imwrite(str(path), z)
        root = Path(config.root)
        if not lidar:
            root = tmp_path / "town"
            for path in Path(config.root).rglob("*"):
                if path.is_file() and path.suffix != ".pcd":
                    link = root / path.relative_to(config.root)
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.unlink(missing_ok=True)
                    link.hardlink_to(path)
        return replace(config, root=str(root), depth_root=str(tmp_path / "depth"))

    return write


@pytest.mark.parametrize("lidar", [True, False])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_are_no_meters_are_refused_by_name(name: str, lidar: bool, rewritten: Config) -> None:
    change, expected = NUMBERS[name]
    witness = "the LiDAR sweeps" if lidar else "the road under the cameras"
    with pytest.raises(DatasetLayoutError, match=f"by {witness}.*{expected}"):
        build_split(rewritten(NPY, change, lidar), "val")


@pytest.mark.parametrize("name", IMAGES)
def test_images_in_another_code_are_refused_by_name(name: str, rewritten: Config) -> None:
    change, expected = IMAGES[name]
    with pytest.raises(DatasetLayoutError, match=expected):
        build_split(rewritten(PNG, change), "val")


@pytest.mark.parametrize("lidar", [True, False])
def test_depth_in_meters_is_taken_silently(lidar: bool, rewritten: Config, caplog: pytest.LogCaptureFixture) -> None:
    for pattern, change in ((NPY, lambda z: z), (PNG, carla_code)):
        assert len(build_split(rewritten(pattern, change, lidar), "val"))
    assert not caplog.records


def test_the_other_kind_of_depth_is_refused_where_sweeps_tell(config_of: Config) -> None:
    with pytest.raises(DatasetLayoutError, match=r"depth along the optical axis \(z\).*data.depth.kind=z"):
        build_split(config_of(depth=DepthConfig(kind="ray")), "val")


def test_depth_that_is_nowhere_known_is_refused_with_the_figure(rewritten: Config) -> None:
    with pytest.raises(DatasetLayoutError, match=r"0.0% of the pixels have a depth between 0 and .*no number is above"):
        build_split(rewritten(NPY, lambda z: 0 * z), "val")


def test_what_is_refused_can_be_looked_at(rewritten: Config, caplog: pytest.LogCaptureFixture) -> None:
    assert len(build_split(rewritten(NPY, NUMBERS["millimeters"][0]), "val", refuse_depth=False))
    assert "in millimeters" in caplog.text


def test_noise_is_warned_of(rewritten: Config, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    build_split(rewritten(NPY, lambda z: rng.uniform(1, 150, z.shape).astype(np.float32)), "val")
    assert "pixels agree with the LiDAR sweeps" in caplog.text


def test_gray_in_meters_is_read_if_asked_for_by_name(rewritten: Config) -> None:
    meters = gray(lambda z: np.minimum(z, 255))
    with pytest.raises(DatasetLayoutError, match=r"data\.depth\.source=gray"):
        build_split(rewritten(PNG, meters), "val")
    config = rewritten(PNG, meters, depth=DepthConfig(source="gray"))
    dataset = build_split(config, "val")
    ref = dataset.index.frame(0)
    agents = {agent: read_agent(dataset.index.yaml_path(ref, agent)) for agent in ref.agents[:1]}
    (depth,) = dataset.depth_source.read(ref, agents).values()
    exact = select_depth_source(dataset.index, rewritten(NPY, lambda z: z).depth_root, "npy").read(ref, agents)
    (expected,) = exact.values()
    both = (depth > 0) & (expected > 0)
    length = z_to_range(agents[ref.agents[0]].rig)
    assert both.mean() > 0.3
    assert (np.abs(depth - expected) / length)[both].max() <= 0.501  # half a meter along the optical axis
    assert not depth[expected == 0].any()  # the sky, or what is too far
    assert "gray" in dataset.depth_source.describe()


def test_a_color_code_is_no_gray_and_gray_no_code(rewritten: Config) -> None:
    config = rewritten(PNG, carla_code)
    index = SplitIndex.build(config.root, "val")
    ref = index.frame(0)
    source = select_depth_source(index, config.depth_root, "gray")
    with pytest.raises(CorruptFrameError, match=r"data\.depth\.source=png"):
        source.stored(ref, ref.agents[0], 0)
    sky = select_depth_source(index, rewritten(PNG, lambda z: np.full((*z.shape, 3), 255, np.uint8)).depth_root, "png")
    assert (sky.stored(ref, ref.agents[0], 0) >= 999).all()  # nothing but sky is a code
    flat = select_depth_source(index, rewritten(PNG, gray(lambda z: z / 5)).depth_root, "png")
    with pytest.raises(GrayDepthError, match="R = G = B"):
        flat.stored(ref, ref.agents[0], 0)
