"""Damaged files in a real run: each is named and skipped, and the run ends well."""

import io
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from coopmap.cli.main import main
from coopmap.data.opv2v import read_agent
from coopmap.geometry.cameras import PinholeCamera, camera_rays
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT
from coopmap.geometry.se3_numpy import rotate

from .conftest import DatasetWriter
from .test_damage import BOMB, npy, png

CARS = {"1": (0.0, 0.0, 1.9, 0.0, 0.0, 0.0), "2": (20.0, 3.0, 1.9, 0.0, 30.0, 0.0)}
SUFFIXES = (".yaml", ".pcd", "_camera0.png", "_camera1.png", "_camera2.png", "_camera3.png")
DEPTH_SUFFIXES = tuple(f"_camera{number}_depth.npy" for number in range(4))


@dataclass(frozen=True)
class Street:
    """A scenario of two cars in a street, in which every frame shows the same."""

    root: Path
    depth_root: Path

    def folder(self, car: str, split: str = "train") -> Path:
        return self.root / split / "s" / car

    def depth_folder(self, car: str, split: str = "train") -> Path:
        return self.depth_root / split / "s" / car

    def fill(self, split: str, frames: int) -> None:
        """Write further frames, as links to the files of the first."""
        for car in CARS:
            for folder, first, suffixes in (
                (self.folder(car, split), self.folder(car, "validate"), SUFFIXES),
                (self.depth_folder(car, split), self.depth_folder(car, "validate"), DEPTH_SUFFIXES),
            ):
                folder.mkdir(parents=True, exist_ok=True)
                for suffix in suffixes:
                    for number in range(frames):
                        if not (target := folder / f"{number:06d}{suffix}").exists():
                            os.link(first / f"000000{suffix}", target)


@pytest.fixture
def street(writer: DatasetWriter, tmp_path: Path, cast_street, sweep_street) -> Street:
    street = Street(writer.root, tmp_path / "depth")
    right, down, forward = sweep_street()[::20].T
    for car, cords in CARS.items():
        agent = read_agent(writer.agent("s", car, "000000", cords, np.stack([forward, right, -down], axis=1)))
        folder = street.depth_folder(car, "validate")
        folder.mkdir(parents=True)
        for number, matrix, pose in zip(
            OPV2V_CAMERA_OF_SLOT, agent.rig.intrinsics, agent.rig.agent_from_camera, strict=True
        ):
            rays = camera_rays(PinholeCamera(matrix, *agent.rig.image_size))
            ranges = cast_street(pose[:3, 3], rotate(pose, rays))
            depth = np.where(ranges < 120, ranges * rays[..., 2], 0).astype(np.float32)
            np.save(folder / f"000000_camera{number}_depth.npy", depth)
    street.fill("validate", 4)
    return street


# Damages: each gets a file that is there, and leaves something else in its place


def written(content: bytes | str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def changed(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: written(change(path.read_bytes()))(path)


def edited(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(content: bytes) -> bytes:
        values = yaml.safe_load(content)
        change(values)
        return yaml.safe_dump(values).encode()

    return changed(edit)


def with_pose(text: str) -> Callable[[Path], None]:
    """Another text for the LiDAR's pose."""

    def edit(content: bytes) -> bytes:
        return re.sub(rb"(?m)^lidar_pose:\n(- .*\n)*", f"lidar_pose: {text}\n".encode(), content)

    return changed(edit)


def saved(values: object, save: Callable[..., None] = np.save) -> Callable[[Path], None]:
    buffer = io.BytesIO()
    save(buffer, values)
    return written(buffer.getvalue())


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    return content[:-30] + bytes([content[-30] ^ 4]) + content[-29:]


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def absurd_center(values: dict) -> None:
    for number in range(4):
        values[f"camera{number}"]["intrinsic"][0][2] = 1e9


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
HUGE_NPY = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }")

Fault = tuple[str, Callable[[Path], None], str]
FAULTS: dict[str, Fault] = {  # end of the file's name, what is done to it, what is said
    "a date for a pose": (".yaml", with_pose("2021-08-16"), "'lidar_pose' must hold"),
    "400 digits": (".yaml", with_pose(f"[{'9' * 400}, 0, 0, 0, 0, 0]"), "'lidar_pose' must hold"),
    "digits of another script": (".yaml", with_pose("['١', 0, 0, 0, 0, 0]"), "'lidar_pose' must hold"),  # noqa: RUF001
    "an alias bomb": (".yaml", written(BOMB), "aliases stand for more than"),
    "nesting": (".yaml", written("lidar_pose: " + "[" * 100_000), "nested more than 64-fold"),
    "a YAML file cut off": (".yaml", changed(cut), "cut off|is missing"),
    "an absurd center": (".yaml", edited(absurd_center), "the principal points"),
    "a contradiction": (".yaml", edited(lambda values: values["camera1"]["cords"].__setitem__(4, 5.0)), "'extrinsic'"),
    "a PNG of huge size": ("_camera0.png", written(png(10**6, 10**6)), "announces 1000000 x 1000000 pixels"),
    "a PNG cut off": ("_camera1.png", changed(cut), "truncated"),
    "a bit of a PNG": ("_camera2.png", changed(flipped), "checksum"),
    "a pointer of Git LFS": ("_camera3.png", written(LFS), "LFS pointer"),
    "a named pipe": ("_camera0.png", pipe, "is a named pipe"),
    "a header of terabytes": ("_camera0_depth.npy", written(HUGE_NPY), "announced"),
    "an array of objects": ("_camera1_depth.npy", saved(np.array([{}], object)), "holds Python objects"),
    "an archive for an array": ("_camera2_depth.npy", saved(np.zeros((60, 80)), np.savez), r"an \.npz archive"),
    "a link to itself": ("_camera3_depth.npy", loop, "leads back to itself"),
}
IN_SWEEPS: dict[str, Fault] = {
    **{name: FAULTS[name] for name in list(FAULTS)[:9:2]},
    "a PNG cut off": FAULTS["a PNG cut off"],
    "a missing image": ("_camera2.png", Path.unlink, "no such file"),
    "a folder for an image": ("_camera3.png", folder, "is a folder"),
    "COUNT 1e9": (".pcd", changed(lambda text: text.replace(b"COUNT 1 1 1 1", b"COUNT 1 1 1 1000000000")), "COUNT"),
    "a sweep cut off": (".pcd", changed(cut), "truncated|POINTS"),
    "a missing sweep": (".pcd", Path.unlink, "no such file"),
    "an empty sweep": (".pcd", written(b""), "empty|header"),
}


def place(street: Street, faults: Sequence[Fault], frames: Sequence[int]) -> dict[Path, str]:
    """Put a fault into each of some frames, in one car or the other; what is to be said of which file."""
    expected = {}
    for number, (frame, (suffix, damage, message)) in enumerate(zip(frames, faults, strict=True)):
        car = list(CARS)[number % 2]
        parent = street.depth_folder(car) if suffix.endswith(".npy") else street.folder(car)
        path = parent / f"{frame:06d}{suffix}"
        damage(path)
        expected[path] = message
    return expected


def train(street: Street, tiny_model: Sequence[str], steps: int, *more: str) -> tuple[Path, str]:
    """One epoch by the public command; the run's folder and its log."""
    run = street.root.parent / "run"
    main(
        ["train", *tiny_model, "logger=csv", "callbacks.progress=none", "callbacks.live_frames=0", "data.num_workers=0",
         "data.max_agents=2", f"data.root={street.root}", f"data.steps_per_epoch={steps}", "trainer.max_epochs=1",
         "callbacks.validate_at_start=false", f"run_dir={run}", *more]
    )  # fmt: skip
    return run, (run / "train.log").read_text()


def assert_listed(log: str, expected: dict[Path, str], step: int) -> None:
    """The list at the end of the epoch has each damaged file, with what is wrong, and nothing else."""
    head = f"{len(expected)} files could not be read and were skipped up to step {step}:\n"
    assert log.count(head) == 1
    lines = [line for line in log.split(head)[1].splitlines() if line.startswith("  ")][: len(expected)]
    said = {Path(line.removeprefix("  train: ").partition(": ")[0]): line for line in lines}
    assert said.keys() == expected.keys()
    for path, message in expected.items():
        assert re.search(message, said[path]), said[path]


def test_seventeen_faults_are_named_and_skipped(street: Street, tiny_model: tuple[str, ...]) -> None:
    frames = 48
    street.fill("train", frames)
    assert len(FAULTS) == 17
    expected = place(street, list(FAULTS.values()), range(1, 2 * len(FAULTS), 2))
    run, log = train(
        street, tiny_model, frames // 6, f"data.depth_root={street.depth_root}", "data.bad_frame_budget=0.5",
        "data.max_views_per_gpu=12",
    )  # fmt: skip
    assert_listed(log, expected, frames // 6)
    summary = json.loads((run / "metrics.json").read_text())
    assert summary["steps"] == frames // 6
    assert np.isfinite(summary["pose_trans_avg"]["last"])
    assert (run / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
def test_a_split_of_two_thousand_frames_with_three_percent_damaged(street: Street, tiny_model: tuple[str, ...]) -> None:
    frames, damaged = 2000, 60
    street.fill("train", frames)
    shutil.rmtree(street.depth_root)
    assert len(IN_SWEEPS) == 12
    chosen = np.random.default_rng(0).permutation(frames)[:damaged].tolist()
    expected = place(street, list(IN_SWEEPS.values()) * (damaged // len(IN_SWEEPS)), chosen)
    began = time.monotonic()
    run, log = train(street, tiny_model, frames // 20, "data.bad_frame_budget=0.05", "data.max_views_per_gpu=40")
    assert_listed(log, expected, frames // 20)
    assert json.loads((run / "metrics.json").read_text())["steps"] == frames // 20
    print(f"{len(expected)} of {frames} frames left out, {time.monotonic() - began:.0f} s")


def test_more_than_the_budget_end_the_run_by_name(
    street: Street, tiny_model: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    street.fill("train", 10)
    paths = place(street, [FAULTS["a PNG cut off"]] * 2, [4, 6])
    with pytest.raises(SystemExit) as ended:
        train(street, tiny_model, 10, f"data.depth_root={street.depth_root}", "data.max_views_per_gpu=4")
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "data.bad_frame_budget allows 1" in error
    assert all(str(path) in error for path in paths)
