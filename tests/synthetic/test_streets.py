"""Streets: each scenario a place of its own, reproducible, rendered bit by bit, as diverse as they say."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from coopmap.config import load_config
from coopmap.config.checks import ConfigError
from coopmap.config.synth import EVERYDAY_STYLES, STYLES, ScenarioCounts, TownConfig
from coopmap.data.splits import town_is_there
from coopmap.synthetic import dataset, missing_scenarios, read_config, render_town
from coopmap.synthetic.materials import Material
from coopmap.synthetic.record import record_of
from coopmap.synthetic.street import Street, meeting, place, street_seed, styles
from coopmap.synthetic.street.facades import FIRST_FACADE, street_tiles
from coopmap.synthetic.street.ground import HALF_M
from coopmap.synthetic.street.roads import Road, draw_roads
from coopmap.synthetic.street.world import HARD, HARD_SHARE, draw_kind
from coopmap.synthetic.worlds import plan_drive

from ..worlds import tiny_streets


def checksums(root: str | None) -> dict[str, str]:
    assert root is not None
    files = sorted(path for path in Path(root).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def names(folder: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in folder.glob("*/*_*")}


def test_same_bytes_whatever_the_number_of_workers(streets: TownConfig, tmp_path: Path) -> None:
    again = tiny_streets(str(tmp_path / "s"), str(tmp_path / "d"), workers=2)
    render_town(again)
    assert checksums(again.root) == checksums(streets.root)
    assert checksums(again.depth_root) == checksums(streets.depth_root)


def test_no_two_scenarios_share_a_street() -> None:
    seeds = {tuple(street_seed(0, split, index)) for split in ("train", "validate", "test") for index in range(1000)}
    assert len(seeds) == 3000
    streets = [Street(tiny_streets("s", None), *which) for which in (("train", 0), ("train", 1), ("validate", 0))]
    assert len({street.roads[0].heading for street in streets}) == 3
    assert len({tuple(street.light.toward_sun) for street in streets}) == 3


def test_ground_has_a_level_for_every_footprint_and_the_verges_color_beyond() -> None:
    ground = Street(tiny_streets("s", None), "train", 0).ground
    x, y = np.meshgrid(np.linspace(-40, 40, 200, dtype=np.float32), np.linspace(-40, 40, 200, dtype=np.float32))
    fine, coarse = (ground.lookup(x.ravel(), y.ravel(), np.full(x.size, size, np.float32)) for size in (0.01, 100.0))
    np.testing.assert_allclose(coarse.mean(axis=0), fine.mean(axis=0), atol=0.01)
    assert coarse.std(axis=0).max() < fine.std(axis=0).max()
    far = np.array([-HALF_M, HALF_M, 500.0], dtype=np.float32)
    for size in (0.01, 100.0):
        beyond = ground.lookup(far, -far, np.full(3, size, np.float32))
        np.testing.assert_allclose(beyond, np.broadcast_to(ground.base / 255, (3, 3)), rtol=1e-6)


def test_raising_the_counts_keeps_what_exists(tmp_path: Path) -> None:
    def config(train: int) -> TownConfig:
        return tiny_streets(str(tmp_path / "s"), str(tmp_path / "d"), scenarios=ScenarioCounts(train, 0, 0))

    render_town(config(1))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    assert missing_scenarios(config(2)) == [("train", 1)]
    render_town(config(2))
    assert missing_scenarios(config(2)) == []
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert names(tmp_path / "s") == names(tmp_path / "d") == {"train/train_00000", "train/train_00001"}
    render_town(config(1))  # fewer than there are: nothing to do
    assert names(tmp_path / "s") == {"train/train_00000", "train/train_00001"}


def test_killed_rendering_leaves_whole_streets_and_goes_on(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "coopmap.synth", "towns=per_scenario", "root=s", "depth_root=d", "workers=1",
        "image_scale=0.125", "lidar.beams=16", "lidar.azimuth_steps=180", "scenarios.train=100", "agents_min=2",
        "agents_max=3",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while len(names(tmp_path / "s")) < 2 or not list(tmp_path.glob("s/.partial-*/*/*/*/*.png")):
            assert process.poll() is None, "ended before writing anything"
            time.sleep(0.002)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = names(tmp_path / "s")
    assert done <= names(tmp_path / "d")
    whole = tiny_streets(str(tmp_path / "w"), str(tmp_path / "wd"), scenarios=ScenarioCounts(len(done), 0, 0))
    render_town(whole)
    for name in done:
        assert checksums(str(tmp_path / "s" / name)) == checksums(str(tmp_path / "w" / name))
        assert checksums(str(tmp_path / "d" / name)) == checksums(str(tmp_path / "wd" / name))
    for leftover in tmp_path.glob("?/.partial-*"):
        os.utime(leftover, (0, 0))
    render_town(tiny_streets(str(tmp_path / "s"), str(tmp_path / "d"), scenarios=ScenarioCounts(len(done) + 1, 0, 0)))
    assert len(names(tmp_path / "s")) == len(done) + 1
    assert not list(tmp_path.glob("?/.partial-*"))


def test_lost_depth_is_rendered_again(streets: TownConfig, tmp_path: Path) -> None:
    cfg = tiny_streets(str(tmp_path / "s"), str(tmp_path / "d"))
    render_town(cfg)
    (tmp_path / "d" / "train" / "train_00001").rename(tmp_path / "away")
    assert missing_scenarios(cfg) == [("train", 1)]
    render_town(cfg)
    assert checksums(cfg.depth_root) == checksums(streets.depth_root)
    assert checksums(cfg.root) == checksums(streets.root)


def test_other_streets_are_refused_or_replaced(tmp_path: Path) -> None:
    counts = ScenarioCounts(1, 0, 0)
    render_town(tiny_streets(str(tmp_path / "s"), None, scenarios=counts, style="suburb"))
    before = checksums(str(tmp_path / "s"))
    with pytest.raises(ConfigError, match=r"another style; choose another root.*overwrite=true"):
        render_town(tiny_streets(str(tmp_path / "s"), None, scenarios=counts, style="grid"))
    assert checksums(str(tmp_path / "s")) == before
    render_town(tiny_streets(str(tmp_path / "s"), None, scenarios=counts, style="grid", overwrite=True))
    assert read_config(tmp_path / "s").styles == ("grid",)
    assert checksums(str(tmp_path / "s")).keys() != before.keys() or checksums(str(tmp_path / "s")) != before


def test_failure_leaves_whole_streets_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = dataset.render_agent, []

    def fails_at_fourth(*args: object) -> None:
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset, "render_agent", fails_at_fourth)
    with pytest.raises(KeyboardInterrupt):
        render_town(tiny_streets(str(tmp_path / "s"), str(tmp_path / "d"), agents_max=2))
    assert names(tmp_path / "s") == names(tmp_path / "d") == {"train/train_00000"}
    assert not list(tmp_path.glob("?/.partial-*"))


def test_record_names_style_and_hardness(streets: TownConfig) -> None:
    for path in Path(streets.root).glob("*/*/data_protocol.yaml"):
        split, scenario = path.relative_to(streets.root).parts[:2]
        street = Street(streets, split, int(scenario.rsplit("_")[-1]))
        assert yaml.safe_load(path.read_text())["world"]["street"] == street.record()
        assert street.style in STYLES


def test_styles_are_those_asked_for() -> None:
    cfg = tiny_streets("s", None, style=["grid", "oldtown"])
    drawn = [draw_kind(np.random.default_rng(index), cfg.styles)[0] for index in range(20)]
    assert set(drawn) == {"grid", "oldtown"}
    assert set(styles.STYLES) == set(STYLES)
    assert set(tiny_streets("s", None).styles) == set(STYLES) - {"market"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"style": "subrub"}, r"style=subrub.*did you mean suburb\?"),
        ({"style": []}, r"style=\[\]: expected all, a name"),
        ({"traffic": "opv3v"}, r"traffic=opv3v.*opv2v"),
        ({"towns": "many"}, r"towns=many: expected one of one, per_scenario"),
        ({"towns": "one", "traffic": "opv2v"}, r"traffic=opv2v: expected 0 to 20 cars"),
        ({"farthest_m": 300}, r"farthest_m=300: expected 22.5 m \(room for agents_max=3\) to 70 m"),
        ({"towns": "one", "farthest_m": 30}, r"farthest_m=30: expected towns=per_scenario"),
        ({"towns": "one", "style": "grid"}, r"style=grid: expected towns=per_scenario"),
    ],
)
def test_bad_values_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_streets("s", None, **changes)


def pairs(
    statistics: str, streets: int, fewest: int = 4, most: int = 6, farthest_m: float = 70.0
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and angles between headings of the agents of many streets of all styles."""
    distance, turn = [], []
    kinds = list(styles.STYLES.values())
    for index in range(streets):
        rng = np.random.default_rng([1, index])
        roads, count = draw_roads(rng, kinds[index % 5]), fewest + index % (most - fewest + 1)
        tracks = meeting.draw_agents(rng, roads, count, statistics, farthest_m, np.zeros(1))
        xy, yaw = (np.concatenate(each) for each in zip(*(track.at(np.zeros(1)) for track in tracks), strict=True))
        first, second = np.triu_indices(len(xy), 1)
        distance.append(np.linalg.norm(xy[first] - xy[second], axis=1))
        turn.append(np.abs((yaw[first] - yaw[second] + np.pi) % (2 * np.pi) - np.pi))
    return np.concatenate(distance), np.rad2deg(np.concatenate(turn))


def test_agents_meet_as_in_opv2v() -> None:
    distance, turn = pairs("opv2v", 300)
    found = np.histogram(distance, np.arange(0, 75, 5))[0] / len(distance)
    wanted = np.array(meeting.OPV2V_DISTANCES) / sum(meeting.OPV2V_DISTANCES)
    assert np.abs(found - wanted).sum() / 2 < 0.12  # total variation
    assert np.median(distance) == pytest.approx(36.9, abs=3)
    same, crossing, opposite = np.bincount(np.digitize(turn, meeting.HEADING_EDGES_DEG), minlength=3) / len(turn)
    # of four to six cars on two roads, never as few head the same way as among OPV2V's two or three
    assert (same, crossing, opposite) == pytest.approx((0.205, 0.33, 0.465), abs=0.08)


def test_uniform_traffic_has_every_distance() -> None:
    distance, _ = pairs("uniform", 150)
    assert distance.min() > 7
    found = np.histogram(distance, np.arange(10, 75, 10))[0] / len(distance)
    assert found.max() < 1.5 * found.min()


@pytest.mark.parametrize("statistics", ["opv2v", "uniform"])
def test_agents_stay_within_reach(statistics: str) -> None:
    distance, _ = pairs(statistics, 60, 2, 4, farthest_m=30.0)
    assert 25 < distance.max() < 30


def test_places_on_a_bend_are_found_again() -> None:
    rng = np.random.default_rng(0)
    for curvature in (0.0, 0.02, -0.015):
        road = Road((3.0, -2.0), 0.7, curvature, (-50.0, 50.0), 1, 3.0, 0.0, 0.0, 2.0)
        along, across = rng.uniform(-50, 50, 40), rng.uniform(-20, 20, 40)
        xy, heading = road.place(along, across)
        np.testing.assert_allclose(np.stack(road.locate(xy)), [along, across], atol=1e-9)
        ahead, _ = road.place(along + 1e-6, across)
        np.testing.assert_allclose(
            (ahead - xy) / np.linalg.norm(ahead - xy, axis=1, keepdims=True),
            np.stack([np.cos(heading), np.sin(heading)], axis=1),
            atol=1e-5,
        )


def test_a_share_of_streets_repeats_itself() -> None:
    found = [draw_kind(np.random.default_rng(index), EVERYDAY_STYLES)[1] for index in range(1000)]
    assert np.mean([kind != "none" for kind in found]) == pytest.approx(HARD_SHARE, abs=0.05)
    assert set(found) == {"none", *HARD}


def test_blank_walls_have_no_windows() -> None:
    tiles, _ = street_tiles(np.random.default_rng(0), ("plaster", "brick", "office"), blank=True)
    assert (tiles[FIRST_FACADE : FIRST_FACADE + 8, ..., 3] > 0).all()
    tiles, _ = street_tiles(np.random.default_rng(0), ("plaster", "brick", "office"), blank=False)
    assert (tiles[FIRST_FACADE : FIRST_FACADE + 8, ..., 3] == 0).any(axis=(1, 2)).all()


def test_identical_houses_are_identical() -> None:
    rng = np.random.default_rng(0)
    site = place.Site(draw_roads(rng, styles.STYLES["suburb"]))
    place.place_buildings(rng, site, styles.STYLES["suburb"], "identical")
    assert len(site.things) > 8
    shapes = {thing.triangles.tobytes() + thing.color.tobytes() for thing, *_ in site.things}
    assert len(shapes) == 1


def test_nothing_stands_around_an_empty_junction() -> None:
    cfg = tiny_streets("s", None, style=["grid", "suburb"])
    kinds = (draw_kind(np.random.default_rng(street_seed(0, "test", index)), cfg.styles) for index in range(200))
    street = Street(cfg, "test", next(index for index, (_, hard) in enumerate(kinds) if hard == "empty"))
    assert street.hard == "empty"
    stands = street.surface.triangles[street.surface.material != Material.GROUND]
    assert np.linalg.norm(stands[..., :2], axis=-1).min() > place.EMPTY_M - 3  # eaves and porches reach out a little


def test_nothing_stands_on_the_lanes() -> None:
    cfg = tiny_streets("s", None)
    for index in range(4):
        street = Street(cfg, "train", index)
        solid = (street.surface.material != Material.GROUND) & (street.surface.triangles[..., 2].min(axis=1) < 2.0)
        corners = street.surface.triangles[solid].reshape(-1, 3)
        corners = corners[corners[:, 2] < street.terrain.height(corners[:, 0], corners[:, 1]) + 2.0, :2]
        for road in street.roads:
            along, across = road.locate(corners)
            on_lanes = (np.abs(across) < road.lanes_half_m - 0.2) & (np.abs(along) < road.along[1])
            assert not (on_lanes & (along > road.along[0])).any()


def test_training_data_is_there_when_all_its_streets_are(streets: TownConfig) -> None:
    overrides = ["data=streets", f"data.root={streets.root}", f"data.depth_root={streets.depth_root}"]
    counts = ["data.town.scenarios.train=2", "data.town.scenarios.validate=1"]
    assert town_is_there(load_config([*overrides, *counts, "data.town.scenarios.test=0"]).data)
    assert not town_is_there(load_config([*overrides, *counts, "data.town.scenarios.test=1"]).data)


def test_cars_keep_moving_on_their_streets() -> None:
    drive = plan_drive(tiny_streets("s", None, frames=3, frame_interval_s=0.5), "train", 0)
    assert drive.frames == ("000060", "000070", "000080")
    speeds = []
    for car, later in zip(drive.cars[0], drive.cars[1], strict=True):
        speeds.append(car.speed_kmh / 3.6)
        apart = np.linalg.norm(later.pose_ue[:2, 3] - car.pose_ue[:2, 3])
        assert apart == pytest.approx(0.5 * speeds[-1], rel=0.01)  # less than the arc
    assert max(speeds) > 2


@pytest.mark.parametrize("across_m", [-12.0, 12.0])
def test_cars_in_a_bend_are_as_fast_as_they_say(across_m: float) -> None:
    bend = Road((0.0, 0.0), 0.3, 0.02, (-50.0, 50.0), 3, 3.5, 2.0, 0.0, 2.0)
    xy, _ = meeting.Track(bend, 5.0, across_m, -1, 10.0).at(np.array([1.0, 1.01]))
    assert np.linalg.norm(xy[1] - xy[0]) == pytest.approx(0.1, rel=1e-4)  # in its middle it would be 24 % off


@pytest.mark.parametrize("count", [4, 6])
def test_cars_stay_on_their_roads_through_a_long_drive(count: int) -> None:
    seconds, traffic = 0.5 * np.arange(20), 0
    for index in range(30):
        rng = np.random.default_rng([2, index])
        roads = draw_roads(rng, list(styles.STYLES.values())[index % 5])
        agents = meeting.draw_agents(rng, roads, count, "opv2v", 70.0, seconds)
        others = meeting.draw_traffic(rng, roads, agents, 8, seconds)
        assert len(agents) == count
        traffic += len(others)
        for track in [*agents, *others]:
            along, _ = track.road.locate(track.at(seconds)[0])
            assert along.min() > track.road.along[0] - 1e-6
            assert along.max() < track.road.along[1] + 1e-6
    assert traffic > 30 * 3


def test_drives_from_before_cars_stayed_on_their_roads_are_told_apart() -> None:
    """Streets of one frame are what they were."""
    assert record_of(tiny_streets("s", None))["format"] == 2
    assert record_of(tiny_streets("s", None, frames=2))["format"] == 3


@pytest.mark.slow
def test_check_finds_nothing_wrong(streets: TownConfig, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "coopmap", "check", f"data.root={streets.root}"]
    sizes = ["data.panorama.height=84", "data.panorama.width=336", f"data.depth_root={streets.depth_root}"]
    done = subprocess.run([*command, *sizes], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "ok"
