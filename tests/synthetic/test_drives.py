"""Cars keep to their lanes, their distances and their own space."""

import numpy as np
import pytest

from coopmap.config.synth import ScenarioCounts, TownConfig, tiny_town
from coopmap.synthetic.scenario import Drive
from coopmap.synthetic.streets import LANE_M, StreetPlan, along_lane, lane_length_m
from coopmap.synthetic.worlds import plan_drive


@pytest.fixture(scope="module")
def drives() -> list[Drive]:
    cfg = tiny_town("town", "depth", scenarios=ScenarioCounts(12, 0, 0), frames=5, agents_max=5, traffic=6)
    return [plan_drive(cfg, "train", index) for index in range(12)]


def positions(drive: Drive, frame: int, agents_only: bool) -> np.ndarray:
    cars = [car for car in drive.cars[frame] if not agents_only or car.id in drive.agents]
    return np.array([car.pose_ue[:3, 3] for car in cars])


def pair_distances(points: np.ndarray) -> np.ndarray:
    gap = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return gap[np.triu_indices(len(points), 1)]


def test_agents_are_within_communication_range(drives: list[Drive]) -> None:
    gaps = np.concatenate(
        [pair_distances(positions(drive, frame, True)) for drive in drives for frame in range(len(drive.frames))]
    )
    assert gaps.min() > 5
    assert gaps.max() < 60
    assert np.mean((gaps > 10) & (gaps < 45)) > 0.7
    assert {len(drive.agents) for drive in drives} == {2, 3, 4, 5}


def test_cars_do_not_overlap(drives: list[Drive]) -> None:
    for drive in drives:
        for frame in range(len(drive.frames)):
            assert pair_distances(positions(drive, frame, False)).min() > 2.5


def test_cars_move_at_their_speed(drives: list[Drive]) -> None:
    for drive in drives:
        for car, later in zip(drive.cars[0], drive.cars[1], strict=True):
            step = np.linalg.norm(later.pose_ue[:2, 3] - car.pose_ue[:2, 3])
            # less than the lane's length where it cuts a corner
            assert 0.6 * 0.5 * car.speed_kmh / 3.6 < step < 1.01 * 0.5 * car.speed_kmh / 3.6


def test_agents_head_in_different_directions(drives: list[Drive]) -> None:
    heading = [
        np.round(np.degrees(np.arctan2(car.pose_ue[1, 0], car.pose_ue[0, 0])) / 90) % 4
        for drive in drives
        for car in drive.cars[0]
        if car.id in drive.agents
    ]
    assert set(heading) == {0.0, 1.0, 2.0, 3.0}


def test_splits_and_scenarios_differ() -> None:
    cfg = tiny_town("town", "depth")
    first, second, other_split = (plan_drive(cfg, *which) for which in (("train", 0), ("train", 1), ("validate", 0)))
    starts = [drive.cars[0][0].pose_ue[0, 3] for drive in (first, second, other_split)]
    assert len(set(starts)) == 3
    assert first.name == "train_0000"
    assert plan_drive(cfg, "train", 0).cars[0][0].pose_ue[0, 3] == starts[0]


def test_lanes_are_on_the_right() -> None:
    """Between junctions a car heading along +x drives at +y of the middle of the street (CARLA: y is right)."""
    plan = StreetPlan(np.array([-50.0, 0.0, 50.0]), np.array([-50.0, 0.0, 50.0]))
    rng = np.random.default_rng(0)
    checked = 0
    for _ in range(20):
        lane = plan.random_lane(rng, 6)
        position, yaw = along_lane(lane, np.linspace(0, lane_length_m(lane), 100))
        forward = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
        right = np.stack([-forward[:, 1], forward[:, 0]], axis=-1)
        to_junction = np.abs(position - np.round(position / 50) * 50).max(axis=1)
        straight = (np.abs(forward).max(axis=1) > 1 - 1e-9) & (to_junction > 8)
        offset = np.einsum("ni,ni->n", position - np.round(position / 50) * 50, right)
        np.testing.assert_allclose(offset[straight], LANE_M, atol=1e-9)
        checked += straight.sum()
    assert checked > 500


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_scale", 0.123), ("image_scale", 0.0), ("frame_interval_s", 0.07), ("agents_min", 7),
        ("slope_deg", -1.0), ("size_m", 20.0),
        ("frames", 0), ("workers", 0), ("seed", -1),
    ],
)  # fmt: skip
def test_bad_values_are_named(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{key}={value}"):
        TownConfig(**{key: value})  # type: ignore[arg-type]
