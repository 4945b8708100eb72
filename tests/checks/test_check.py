"""A rendered town is clean; every way to break it is named by kind and path."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from coopmap.checks.batches import Batches, plan_batches, shortage
from coopmap.cli.main import main
from coopmap.config import load_config
from coopmap.config.checks import ConfigError
from coopmap.config.synth import LidarConfig, TownConfig, tiny_town
from coopmap.data import OPV2VDataModule
from coopmap.data.opv2v import SplitIndex, read_exclusions, select_depth_source
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.geometry import pose_from_carla
from coopmap.synthetic import render_town
from coopmap.synthetic.writer import write_sweep

from ..worlds import as_jpeg

SMALL = ("data.panorama.height=28", "data.panorama.width=112", "data.num_workers=0", "workers=1")
FRAMES = ("000060", "000070", "000080", "000090")


def check(folder: Path, *arguments: str, depth: bool = True) -> tuple[int, dict]:
    """Exit status and ``check.json`` of the command on ``folder/town``."""
    output = folder / "out"
    roots = [f"data.root={folder / 'town'}"] + ([f"data.depth_root={folder / 'depth'}"] if depth else [])
    status = 0
    try:
        main(["check", *roots, f"output={output}", *SMALL, *arguments])
    except SystemExit as ended:
        status = ended.code
    return status, json.loads((output / "check.json").read_text())


def found(report: dict, folder: Path) -> set[tuple[str, str]]:
    """Kinds and paths below ``folder``."""
    return {(p["kind"], p["path"].removeprefix(f"{folder}/")) for p in report["problems"]}


def agents(folder: Path, split: str = "train") -> list[str]:
    return list(SplitIndex.build(folder / "town", split).frame(0).agents)


def scenario(folder: Path, split: str = "train") -> Path:
    return folder / "town" / split / f"{split}_0000"


def replace(path: Path, content: bytes | str) -> None:
    """Put a new file in the place of a link."""
    path.unlink()
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def edit(path: Path, change: Callable[[dict], None]) -> None:
    """Change a metadata file."""
    content = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    change(content)
    dumper = getattr(yaml, "CDumper", yaml.Dumper)
    replace(path, yaml.dump(content, Dumper=dumper, default_flow_style=None, width=4096))


def metadata(folder: Path) -> list[Path]:
    return sorted((folder / "town").rglob("0*.yaml"))


def rename(path: Path, other: Path, between: Path) -> None:
    path.rename(between)
    other.rename(path)
    between.rename(other)


# Ways to break a copy: each changes the folder and returns the problems to expect, and further arguments.
Broken = tuple[set[tuple[str, str]], tuple[str, ...]]


def depth_files(folder: Path) -> list[Path]:
    return sorted((folder / "depth").rglob("*.npy"))


def save_depth(path: Path, depth: np.ndarray) -> None:
    path.unlink()
    np.save(path, depth.astype(np.float32))


def range_for_z(folder: Path) -> Broken:
    return {("depth_kind", "depth")}, ("data.depth.kind=ray",)


def z_for_range(folder: Path) -> Broken:
    height, width, focal = 75, 100, 335.639852470912 / 8
    x, y = (np.arange(width) + 0.5 - width / 2) / focal, (np.arange(height) + 0.5 - height / 2) / focal
    length = np.sqrt(1 + x**2 + y[:, None] ** 2)
    for path in depth_files(folder):
        save_depth(path, np.load(path) * length)
    return {("depth_kind", "depth")}, ()


def scaled_depth(folder: Path, factor: float) -> Broken:
    for path in depth_files(folder):
        save_depth(path, np.load(path) * factor)
    return {("depth_unit", "depth")}, ()


def centimeters(folder: Path) -> Broken:
    return scaled_depth(folder, 100)


def millimeters(folder: Path) -> Broken:
    return scaled_depth(folder, 1000)


def swapped_images(folder: Path) -> Broken:
    agent = agents(folder)[0]  # drives 5.1 m from frame to frame
    for frame in FRAMES:
        left, right = (scenario(folder) / agent / f"{frame}_camera{number}.png" for number in (2, 1))
        rename(left, right, folder / "between")
    return {("cameras_swapped", f"town/train/train_0000/{agent}")}, ()


def swapped_depth(folder: Path) -> Broken:
    agent = agents(folder)[1]
    for frame in FRAMES:
        place = folder / "depth" / "train" / "train_0000" / agent
        rename(*(place / f"{frame}_camera{number}_depth.npy" for number in (2, 1)), folder / "between")
    return {("depth_swapped", f"depth/train/train_0000/{agent}")}, ()


def swapped_calibration(folder: Path) -> Broken:
    agent = agents(folder)[2]

    def swap(content: dict) -> None:
        content["camera1"], content["camera2"] = content["camera2"], content["camera1"]

    for frame in FRAMES:
        edit(scenario(folder) / agent / f"{frame}.yaml", swap)
    return {("cameras_swapped", f"town/train/train_0000/{agent}")}, ()


def turn_sign(folder: Path, angle: int, fits: bool) -> None:
    """Another sign for roll (3), yaw (4) or pitch (5); with ``fits`` extrinsic follows."""

    def change(content: dict) -> None:
        content["lidar_pose"][angle] *= -1
        lidar = pose_from_carla(content["lidar_pose"])
        for number in range(4):
            camera = content[f"camera{number}"]
            camera["cords"][angle] *= -1
            if fits:
                camera["extrinsic"] = (np.linalg.inv(pose_from_carla(camera["cords"])) @ lidar).tolist()

    for path in metadata(folder):
        edit(path, change)


def pitch_sign(folder: Path) -> Broken:
    turn_sign(folder, 5, fits=False)
    return {("pitch_sign", "town")}, ()


def pitch_sign_that_fits(folder: Path) -> Broken:
    turn_sign(folder, 5, fits=True)
    return {("pitch_sign", "town")}, ()


def roll_sign(folder: Path) -> Broken:
    turn_sign(folder, 3, fits=False)
    return {("roll_sign", "town")}, ()


def roll_sign_that_fits(folder: Path) -> Broken:
    turn_sign(folder, 3, fits=True)
    return {("roll_sign", "town")}, ()


def missing_agent(folder: Path) -> Broken:
    path = scenario(folder) / agents(folder)[0] / "000080.yaml"
    path.unlink()
    return {("missing_agent", str(path.relative_to(folder)))}, ()


def frame_twice(folder: Path) -> Broken:
    for root in (folder / "town", folder / "depth"):
        for path in (root / "train").rglob("000070*"):
            copy = path.with_name(path.name.replace("000070", "000080"))
            copy.unlink()
            os.link(path, copy)
    places = [f"town/train/train_0000/{agent}/000080.yaml" for agent in agents(folder)]
    return {("duplicate_frame", place) for place in places}, ()


def shifted_timestamps(folder: Path) -> Broken:
    agent = agents(folder)[1]
    for root in (folder / "town", folder / "depth"):
        place = root / "train" / "train_0000" / agent
        files = {path.name: path.rename(folder / f"moved_{path.name}") for path in sorted(place.iterdir())}
        for name, path in files.items():
            later = FRAMES[(FRAMES.index(name[:6]) + 1) % len(FRAMES)]
            path.rename(place / (later + name[6:]))
    return {("shifted_time", f"town/train/train_0000/{agent}")}, ()


def time_gap(folder: Path) -> Broken:
    for path in (folder / "town" / "train").rglob("000070*"):
        path.unlink()
    return {("time_gap", "town/train/train_0000")}, ()


def cut(path: Path, folder: Path, kind: str, share: float = 0.6) -> Broken:
    content = path.read_bytes()
    replace(path, content[: int(len(content) * share)])
    return {(kind, str(path.relative_to(folder)))}, ()


def truncated_image(folder: Path) -> Broken:
    return cut(scenario(folder) / agents(folder)[0] / "000070_camera2.png", folder, "unreadable_image")


def truncated_sweep(folder: Path) -> Broken:
    return cut(scenario(folder) / agents(folder)[0] / "000070.pcd", folder, "unreadable_lidar")


def truncated_depth(folder: Path) -> Broken:
    place = folder / "depth" / "train" / "train_0000" / agents(folder)[0]
    return cut(place / "000070_camera1_depth.npy", folder, "unreadable_depth")


def truncated_metadata(folder: Path) -> Broken:
    path = scenario(folder) / agents(folder)[0] / "000070.yaml"
    content = path.read_bytes()
    replace(path, content[: content.index(b"lidar_pose") + 20])  # within a list
    return {("unreadable_metadata", str(path.relative_to(folder)))}, ()


def metadata_without_the_end(folder: Path) -> Broken:
    path = scenario(folder) / agents(folder)[0] / "000070.yaml"
    content = path.read_bytes()
    replace(path, content[: content.index(b"lidar_pose")])
    return {("incomplete_metadata", str(path.relative_to(folder)))}, ()


def missing_depth(folder: Path) -> Broken:
    path = folder / "depth" / "train" / "train_0000" / agents(folder)[2] / "000070_camera3_depth.npy"
    path.unlink()
    return {("missing_depth", str(path.relative_to(folder)))}, ()


def missing_image(folder: Path) -> Broken:
    path = scenario(folder) / agents(folder)[2] / "000070_camera3.png"
    path.unlink()
    return {("missing_image", str(path.relative_to(folder)))}, ()


def wrong_extrinsic(folder: Path) -> Broken:
    path = scenario(folder) / agents(folder)[0] / "000090.yaml"

    def change(content: dict) -> None:
        content["camera2"]["extrinsic"][0][3] += 0.1

    edit(path, change)
    return {("extrinsic", str(path.relative_to(folder)))}, ()


def resized_images(folder: Path) -> Broken:
    agent = agents(folder)[1]
    for path in (scenario(folder) / agent).glob("*.png"):
        small = cv2.resize(cv2.imread(str(path)), (60, 45))
        replace(path, cv2.imencode(".png", small)[1].tobytes())
    return {("image_size", f"town/train/train_0000/{agent}")}, ()


def move(path: Path, shift: tuple[float, float]) -> None:
    """Put an agent elsewhere, its cameras too."""

    def change(content: dict) -> None:
        for vector in (
            content["lidar_pose"],
            content["true_ego_pos"],
            *(content[f"camera{n}"]["cords"] for n in range(4)),
        ):
            vector[0] += shift[0]
            vector[1] += shift[1]

    edit(path, change)


def jump(folder: Path) -> Broken:
    path = scenario(folder) / agents(folder)[0] / "000080.yaml"
    move(path, (30.0, 0.0))
    return {("pose_jump", str(path.relative_to(folder)))}, ()


def agent_elsewhere(folder: Path) -> Broken:
    agent = agents(folder)[2]
    for frame in FRAMES:
        move(scenario(folder) / agent / f"{frame}.yaml", (0.0, 60.0))
    return {("agents_disagree", f"town/train/train_0000/{agent}")}, ()


def pose_is_nan(folder: Path) -> Broken:
    path = scenario(folder) / agents(folder)[0] / "000060.yaml"

    def change(content: dict) -> None:
        content["lidar_pose"][1] = float("nan")

    edit(path, change)
    return {("pose_not_finite", str(path.relative_to(folder)))}, ()


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (("lidar_pose", 1), "lidar_pose"),
        (("camera2", "cords", 0), "camera2.cords"),
        (("camera3", "extrinsic", 2, 1), "camera3.extrinsic"),
    ],
)
def test_the_key_that_holds_nan_is_named_alone(keys: tuple, named: str, copy: Path) -> None:
    path = scenario(copy) / agents(copy)[0] / "000060.yaml"

    def change(content: dict) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = float("nan")

    edit(path, change)
    _, report = check(copy, "samples=1")
    assert [problem["detail"] for problem in report["problems"]] == [f"NaN or infinity in {named}"]


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("fix_list={}", "is a folder; expected a file"),
        ("fix_list={}/file/fixes.txt", ".*file is a file; .*"),
        ("output={}/file", ".*file is a file; expected a folder.*"),
    ],
)
def test_where_nothing_can_be_written_is_told_before_the_check(
    argument: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        main(["check", "data.root=/nowhere", argument.format(tmp_path)])
    assert re.search(f"^error: {argument.format(tmp_path)}: {reason}$", capsys.readouterr().err)


def scenario_in_two_splits(folder: Path) -> Broken:
    for root in (folder / "town", folder / "depth"):
        shutil.copytree(root / "train" / "train_0000", root / "validate" / "train_0000", copy_function=os.link)
    return {("scenario_in_two_splits", "town/validate/train_0000")}, ()


def renamed_in_two_splits(folder: Path) -> Broken:
    for root in (folder / "town", folder / "depth"):
        shutil.copytree(root / "train" / "train_0000", root / "validate" / "another", copy_function=os.link)
    return {("scenario_in_two_splits", "town/validate/another")}, ()


def empty_split(folder: Path) -> Broken:
    (folder / "town" / "test").mkdir()
    return {("empty_split", "town/test")}, ()


def missing_split(folder: Path) -> Broken:
    shutil.rmtree(folder / "town" / "validate")
    return {("missing_split", "town/validate")}, ()


def two_labels(folder: Path) -> Broken:
    first, *others = agents(folder)
    for root in (folder / "town", folder / "depth"):
        for path in (root / "train" / "train_0000" / first).glob("000090*"):
            path.rename(path.with_name(path.name.replace("000090", "80")))
    place = "town/train/train_0000"
    named = {(kind, f"{place}/{first}/80.yaml") for kind in ("label_not_unique", "pose_jump")}
    lacking = {("missing_agent", f"{place}/{agent}/80.yaml") for agent in others}
    return {*named, *lacking}, ()


def legacy_crop(folder: Path) -> Broken:
    crop = ("data.panorama.surface=infinite", "data.panorama.legacy_crop=true")
    return {("crop", "data.panorama.legacy_crop")}, crop


def lidar_of_another_frame(folder: Path) -> Broken:
    place = scenario(folder) / agents(folder)[0]
    (place / "000070.pcd").unlink()
    os.link(place / "000080.pcd", place / "000070.pcd")
    return {("lidar_mismatch", str((place / "000070.pcd").relative_to(folder)))}, ()


def out_of_range(folder: Path) -> Broken:
    return {("too_few_agents", f"town/{split}") for split in ("train", "validate")}, ("data.communication_range_m=1",)


WAYS = [
    range_for_z, z_for_range, centimeters, millimeters, swapped_images, swapped_depth, swapped_calibration, pitch_sign,
    pitch_sign_that_fits, roll_sign, roll_sign_that_fits, missing_agent, frame_twice, shifted_timestamps, time_gap,
    truncated_image, truncated_sweep, truncated_depth, truncated_metadata, metadata_without_the_end, missing_depth,
    missing_image, wrong_extrinsic, resized_images, jump, agent_elsewhere, pose_is_nan, scenario_in_two_splits,
    renamed_in_two_splits, empty_split, missing_split, two_labels, legacy_crop, lidar_of_another_frame, out_of_range,
]  # fmt: skip


def test_a_root_one_level_too_high_is_told(town: TownConfig, tmp_path: Path) -> None:
    (tmp_path / "town").mkdir()
    (tmp_path / "town" / "mine").symlink_to(town.root)
    status, report = check(tmp_path, depth=False)
    assert (status, [problem["kind"] for problem in report["problems"]]) == (1, ["missing_split"] * 2)
    for problem in report["problems"]:
        expected = f"no such folder. data.root is one level too high; set it to {tmp_path / 'town' / 'mine'}"
        assert problem["detail"] == expected


def test_splits_are_where_the_configuration_says(copy: Path, tmp_path: Path) -> None:
    for root in (copy / "town", copy / "depth"):
        (root / "validate").rename(root / "dev")
    assert found(check(copy)[1], copy) == {("missing_split", "town/validate")}
    assert check(copy, "data.splits.val=dev")[0] == 0
    image = min(path for path in (copy / "town" / "dev").rglob("*_camera2.png"))
    replace(image, image.read_bytes()[:100])
    fixes = tmp_path / "fixes.txt"
    status, report = check(copy, "data.splits.val=dev", f"fix_list={fixes}")
    assert (status, found(report, copy)) == (1, {("unreadable_image", str(image.relative_to(copy)))})
    car, frame = image.parent, image.name.partition("_")[0]
    entry = f"dev/{car.parent.name}/{car.name}/{frame}"
    assert entry in fixes.read_text().splitlines()
    assert check(copy, "data.splits.val=dev", f"data.exclude={fixes}")[0] == 0


def test_a_folder_of_two_splits_is_checked_once(copy: Path) -> None:
    assert check(copy, "data.splits.val=train")[1]["problems"] == []


def test_a_rendered_town_is_clean(checked_town: Path, tmp_path: Path) -> None:
    (tmp_path / "town").symlink_to(checked_town / "town")
    (tmp_path / "depth").symlink_to(checked_town / "depth")
    status, report = check(tmp_path)
    assert (status, report["ok"], report["problems"]) == (0, True, [])


def test_nan_and_infinity_in_depth_are_unknown_as_in_training(copy: Path) -> None:
    for unknown, path in zip((np.nan, np.inf), depth_files(copy), strict=False):
        depth = np.load(path)
        depth[:10] = unknown
        save_depth(path, depth)
    assert check(copy)[1]["problems"] == []


OTHER_WAYS_TO_THE_SAME = {
    z_for_range, millimeters, swapped_calibration, roll_sign_that_fits, metadata_without_the_end, renamed_in_two_splits,
}  # fmt: skip
"""Slow ones: another of the ways is named by the same kind of problem."""


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=[pytest.mark.slow] * (way in OTHER_WAYS_TO_THE_SAME), id=way.__name__) for way in WAYS],
)
def test_what_is_broken_is_named_exactly(way: Callable[[Path], Broken], copy: Path) -> None:
    expected, arguments = way(copy)
    status, report = check(copy, *arguments)
    assert found(report, copy) == expected
    assert (status, report["ok"]) == (1, False)


def test_jpeg_files_are_as_good_as_png_files(copy: Path) -> None:
    as_jpeg(copy / "town")
    assert check(copy, "samples=1")[1]["problems"] == []
    image = scenario(copy) / agents(copy)[0] / "000060_camera2.jpg"
    expected, _ = cut(image, copy, "unreadable_image")
    assert found(check(copy, "samples=1")[1], copy) == expected


def test_poses_may_be_matrices_and_numbers_text(copy: Path) -> None:
    def change(content: dict) -> None:
        for key in ("lidar_pose", "true_ego_pos", "predicted_ego_pos"):
            content[key] = pose_from_carla(content[key]).tolist()
        for vehicle in content["vehicles"].values():
            vehicle["location"] = [f"{number:e}" for number in vehicle["location"]]

    for path in metadata(copy):
        edit(path, change)
    assert check(copy, "samples=1")[1]["problems"] == []
    path = scenario(copy) / agents(copy)[2] / "000070.yaml"
    edit(path, lambda content: content.update(true_ego_pos=content["predicted_ego_pos"]))
    edit(path, lambda content: content["true_ego_pos"][0].__setitem__(3, content["true_ego_pos"][0][3] + 5))
    assert found(check(copy, "samples=1")[1], copy) == {("agents_disagree", str(path.relative_to(copy)))}


def test_the_camera_that_a_car_lacks_is_named(copy: Path) -> None:
    agent = scenario(copy) / agents(copy)[2]
    images = sorted(agent.glob("*_camera3.png"))
    for path in images:
        path.unlink()
    _, report = check(copy)
    detail = f"no such file (and so in all {len(FRAMES)} agent frames below; the first: {images[0]})"
    assert report["problems"] == [{"kind": "missing_image", "path": str(agent), "detail": detail}]


@pytest.mark.parametrize("cameras", [(3,), (2, 3)])
def test_the_camera_that_opv2v_lacks_is_known_and_a_second_one_is_not(cameras: tuple[int, ...], copy: Path) -> None:
    place = scenario(copy).rename(scenario(copy).with_name("2021_09_09_13_20_58"))
    depth = copy / "depth" / "train"
    (depth / "train_0000").rename(depth / place.name)
    for path in [path for camera in cameras for path in place.rglob(f"*_camera{camera}.png")]:
        path.unlink()
    problems = check(copy)[1]["problems"]
    assert {problem["kind"] for problem in problems} == {"missing_image"}
    is_known = ["OPV2V itself lacks it, the download is fine" in problem["detail"] for problem in problems]
    assert is_known == [len(cameras) == 1] * len(problems)


def test_the_frame_that_opv2v_lacks_is_known_and_another_one_is_not(copy: Path) -> None:
    place = scenario(copy).rename(scenario(copy).with_name("2021_08_20_21_10_24"))
    for root in (copy / "town", copy / "depth"):
        for path in root.rglob("000080*"):
            path.rename(path.with_name(path.name.replace("000080", "000265")))
    for frame in ("000070", "000265"):
        (place / agents(copy)[0] / f"{frame}_camera1.png").unlink()
    problems = [problem for problem in check(copy, depth=False)[1]["problems"] if problem["kind"] == "missing_image"]
    is_known = {Path(p["path"]).name[:6]: "the download is fine" in p["detail"] for p in problems}
    assert is_known == {"000070": False, "000265": True}


def test_training_does_not_meet_what_the_fix_list_leaves_out(copy: Path, tmp_path: Path) -> None:
    agent = agents(copy)[0]
    for damage in (truncated_image, lidar_of_another_frame):
        damage(copy)
    fixes = tmp_path / "fixes.txt"
    status, _ = check(copy, f"fix_list={fixes}")
    entries = [line for line in fixes.read_text().splitlines() if not line.startswith("#")]
    assert (status, entries) == (1, [f"train/train_0000/{agent}/000070"])

    roots = (f"data.root={copy / 'town'}", f"data.depth_root={copy / 'depth'}")
    arguments = [*roots, *SMALL[:3], "data.steps_per_epoch=40"]
    datamodule = OPV2VDataModule(load_config([*arguments, f"data.exclude={fixes}"]).data)
    met = {
        (meta.frame, name)
        for loader in (datamodule.train_dataloader(), datamodule.val_dataloader())
        for batch in loader
        for meta in batch.metas
        for name in meta.agents
        if meta.scenario == "train_0000"
    }
    everything = {(frame, name) for frame in FRAMES for name in agents(copy)}
    assert met == everything - {("000070", agent)}
    assert check(copy, f"data.exclude={fixes}") == (0, json.loads((copy / "out" / "check.json").read_text()))


def test_nothing_is_said_of_a_frame_that_is_left_out_whole(copy: Path, tmp_path: Path) -> None:
    agent = agents(copy)[0]
    for root in (copy / "town", copy / "depth"):
        for path in (root / "train" / "train_0000" / agent).glob("000080*"):
            os.link(path, path.with_name(path.name.replace("000080", "80")))
    fixes = tmp_path / "fixes.txt"
    fixes.write_text(f"train/train_0000/{agent}/80\n")
    assert check(copy, f"data.exclude={fixes}")[1]["problems"] == []


@pytest.mark.parametrize("line", ["train/train_0000/000070", "train/a/b/000070", "nonsense"])
def test_a_list_that_is_none_is_refused(line: str, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text(f"# comment\n{line}\n")
    with pytest.raises(ConfigError, match=rf"data.exclude=.*, line 2: '{line}'"):
        read_exclusions(file)
    with pytest.raises(ConfigError, match="there is no such file"):
        read_exclusions(tmp_path / "other.txt")


def test_names_of_scenarios_may_hold_what_begins_a_comment(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("# train/a/1/000060\ntrain/szene ä #2/1/000060\ntrain/a/1/000070 # dark\n\n", encoding="utf-8")
    assert read_exclusions(file) == {"train/szene ä #2/1/000060", "train/a/1/000070"}


@pytest.mark.slow
def test_lidar_is_enough(copy: Path) -> None:
    sweep = next(iter(sorted((copy / "town" / "validate").rglob("000070.pcd"))))
    status, report = check(copy, "data.panorama.height=84", "data.panorama.width=336", depth=False)
    assert (status, report["problems"]) == (0, [])
    train = report["splits"]["train"]
    assert train["depth"].startswith("depth: sparse, LiDAR")
    assert train["used"] > 0.75
    status, report = check(
        copy, "data.panorama.height=84", "data.panorama.width=336", "data.panorama.densify_px=1", depth=False
    )
    densified = report["splits"]["train"]
    assert densified["used"] == train["used"]  # of the points that are measured
    assert densified["valid"] > 1.05 * train["valid"]
    sweep.unlink()
    status, report = check(copy, depth=False)
    assert (status, found(report, copy)) == (1, {("missing_lidar", str(sweep.relative_to(copy)))})


@pytest.mark.slow  # each process imports PyTorch
def test_processes_agree_with_one(copy: Path) -> None:
    truncated_sweep(copy)
    _, alone = check(copy)
    _, together = check(copy, "workers=2")
    assert together == alone


@pytest.mark.parametrize(("every", "is_sound"), [(3, True), (1000, False)])
def test_sweeps_of_few_points_are_sound_and_empty_masks_are_not(every: int, is_sound: bool, copy: Path) -> None:
    for path in sorted((copy / "town").rglob("*.pcd")):
        points = read_sweep(path)[::every, [2, 0, 1]] * [1, 1, -1]  # CARLA's axes
        path.unlink()
        write_sweep(path, points)
    _, report = check(copy, "data.panorama.height=84", "data.panorama.width=336", "samples=1", depth=False)
    train = report["splits"]["train"]
    assert train["least_valid"] < 0.05
    assert (train["valid"] < 0.05, train["valid"] >= train["least_valid"]) == (True, is_sound)
    assert ("masks" in {problem["kind"] for problem in report["problems"]}) == (not is_sound)


def test_only_some_frames_are_read_whole(copy: Path) -> None:
    truncated_image(copy)  # frame 70, neither first nor last
    status, report = check(copy, "samples=2")
    assert (status, report["splits"]["train"]["frames_read_whole"]) == (0, 2)
    assert report["splits"]["train"]["frames"] == 4


def test_figures_are_those_of_the_data(checked_town: Path, tmp_path: Path) -> None:
    (tmp_path / "town").symlink_to(checked_town / "town")
    (tmp_path / "depth").symlink_to(checked_town / "depth")
    _, report = check(tmp_path, "data.max_views_per_gpu=7", "data.steps_per_epoch=10")
    train, val = report["splits"]["train"], report["splits"]["val"]
    assert (train["scenarios"], train["frames"], train["agent_frames"], train["rigs"]) == (1, 4, 12, 1)
    assert (train["image_sizes"], train["view_size"]) == (["100 x 75"], [28, 112])
    assert train["non_ambiguous"] == pytest.approx(train["predicted_coverage"], abs=1e-3)
    assert train["batch_sizes"] == {"2": 3, "3": 2}
    assert train["passes_per_epoch"] == {"2": 10 / 2 * 3 / 4, "3": 10 / 2 * 2 / 4}
    assert (val["batch_sizes"], val["steps"]) == ({"3": 2}, 2)
    data = load_config([f"data.root={checked_town / 'town'}", f"data.depth_root={checked_town / 'depth'}", *SMALL[:3]])
    samples = [OPV2VDataModule(data.data).dataset("val")[i] for i in range(4)]
    valid = np.mean([sample.target.valid.double().mean() for sample in samples])
    assert val["valid"] == pytest.approx(valid, abs=1e-6)
    assert val["angle_deg"] < val["angle_deg_by_surface"]["infinite"] / 4
    assert val["best_surface"].startswith("bowl")


def test_batches_have_the_agents_that_training_draws(checked_town: Path) -> None:
    agents = ["data.max_agents=3", "data.max_views_per_gpu=7", "data.steps_per_epoch=10"]
    drawn = "data.sampling.agents={2: 3, 3: 1}"
    batches = train_batches(checked_town, *agents, drawn)
    assert batches.passes == {2: 10 * 0.75 * 3 / 4, 3: 10 * 0.25 * 2 / 4}
    batches = train_batches(checked_town, *agents, "data.sampling.agents={2: 1}")
    assert (batches.agents, batches.passes) == ((2, 2), {2: 10 * 3 / 4})


@pytest.mark.parametrize(
    ("overrides", "number"),
    [
        (["trainer.accumulate_grad_batches=4"], 40),
        (["trainer.limit_train_batches=5"], 5),
        (["trainer.accumulate_grad_batches=4", "trainer.limit_train_batches=0.5"], 20),
    ],
)
def test_batches_of_an_epoch_are_those_that_each_rank_trains_on(
    overrides: list[str], number: int, checked_town: Path
) -> None:
    agents = ["data.min_agents=2", "data.max_agents=2", "data.max_views_per_gpu=6", "data.steps_per_epoch=10"]
    batches = train_batches(checked_town, *agents, *overrides, "trainer.devices=2")
    assert (batches.steps, batches.passes) == (number, {2: 2 * number * 3 / 4})


@pytest.mark.parametrize(
    ("overrides", "frames", "shortage_says"),
    [
        (["data.sampling.min_covisibility=0.99"], {}, "70 and data.sampling.min_covisibility=0.99"),
        (["data.sampling.min_covisibility=0.001"], {2: 4, 3: 4}, ""),
        (["data.neighbor_ticks=4"], {}, "each in data.neighbor_ticks=4 more frames"),
        (["data.neighbor_ticks=3"], {2: 4, 3: 4}, ""),
        (["data.sampling.curriculum.distance_m=[1,70]"], {2: 4, 3: 4}, "data.sampling.curriculum: no frame has 2"),
        (["data.sampling.agents={2: 1, 4: 1}"], {2: 4}, "data.sampling.agents: no frame has 4"),
    ],
)
def test_frames_that_training_will_not_draw_do_not_count(
    overrides: list[str], frames: dict[int, int], shortage_says: str, checked_town: Path
) -> None:
    roots = [f"data.root={checked_town / 'town'}", "data.cache_dir=null"]
    config = load_config([*SMALL[:3], *overrides, *roots])
    index = SplitIndex.build(checked_town / "town", "train")
    batches = plan_batches(config, index, select_depth_source(index))
    assert (batches.frames, batches.is_measured) == (frames, True)
    detail = shortage(config.data, "train", batches)
    assert shortage_says in detail
    assert bool(detail) == bool(shortage_says)


def test_covisibility_that_is_not_measured_is_said_to_be_so(checked_town: Path) -> None:
    assert not train_batches(checked_town, "data.sampling.min_covisibility=0.99").is_measured
    assert train_batches(checked_town).is_measured


def train_batches(root: Path, *overrides: str) -> Batches:
    """Of the training split, of four frames with three agents each."""
    config = load_config([*SMALL[:3], *overrides, f"data.root={root / 'town'}"])
    return plan_batches(config, SplitIndex.build(root / "town", "train"))


def test_crop_is_told_by_its_third(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The signature of the defect with the real rig: 0.33 of the panorama instead of 0.86."""
    _, report = check(copy, "data.panorama.surface=infinite", "data.panorama.legacy_crop=true")
    assert report["splits"]["train"]["non_ambiguous"] == pytest.approx(0.33, abs=0.02)
    assert report["splits"]["train"]["predicted_coverage"] == pytest.approx(0.858, abs=0.01)
    assert re.search(r"crop: 0\.3\d+ covered", capsys.readouterr().out)


@pytest.fixture(scope="session")
def finer_town(make_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A town whose sweeps and images are dense enough to be compared without depth, and whose cars drive far enough."""

    def fill(folder: Path) -> None:
        changes = {"frames": 5, "frame_interval_s": 1.0, "agents_min": 3, "image_scale": 0.25, "lidar": LidarConfig()}
        render_town(tiny_town(str(folder / "town"), str(folder / "depth"), **changes))

    return make_once("finer_town", fill)


@pytest.mark.slow
@pytest.mark.parametrize("way", [None, "cameras", "pitch"])
def test_lidar_tells_axes_and_cameras_from_images(way: str | None, finer_town: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finer_town, tmp_path / "copy", copy_function=os.link))
    agent = agents(folder)[1]
    expected = set()
    if way == "cameras":
        for left in sorted((scenario(folder) / agent).glob("*_camera2.png")):
            rename(left, left.with_name(left.name.replace("camera2", "camera1")), folder / "between")
        expected = {("cameras_swapped", f"town/train/train_0000/{agent}")}
    if way == "pitch":
        turn_sign(folder, 5, fits=True)
        expected = {("pitch_sign", "town")}
    _, report = check(folder, depth=False)
    assert found(report, folder) == expected
    gain = re.search(r"other sign of pitch ([+-][0-9.]+)", report["notes"]["axes by LiDAR in images, train"])
    assert gain is not None
    assert (float(gain[1]) > 0.1) == (way == "pitch")


def test_depth_that_is_disparity_is_named_by_the_check_too(copy: Path) -> None:
    for path in depth_files(copy):
        z = np.load(path)
        save_depth(path, np.where(z < 1000, 100 / np.maximum(z, 0.1), z).astype(np.float32))
    status, report = check(copy)
    assert status == 1
    named = [problem for problem in report["problems"] if problem["kind"] == "depth_encoding"]
    assert named
    assert all("disparity" in problem["detail"] for problem in named)


@pytest.mark.parametrize(
    ("signs", "expected"), [((1, 1, -1), "z points down in the sweeps"), ((1, -1, 1), "y points left in the sweeps")]
)
def test_sweeps_in_other_axes_are_named_where_nothing_else_gives_depth(
    copy: Path, signs: tuple[int, int, int], expected: str
) -> None:
    for path in sorted((copy / "town" / "train").rglob("*.pcd")):
        points = read_sweep(path)[:, [2, 0, 1]] * [1, 1, -1]  # CARLA's axes
        path.unlink()
        write_sweep(path, points * signs)
    status, report = check(copy, "split=train", depth=False)
    assert status == 1
    (named,) = [problem for problem in report["problems"] if problem["kind"] == "lidar_meaning"]
    assert expected in named["detail"]
    assert named["path"].startswith(str(copy / "town" / "train"))
