from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coopmap.data.opv2v import SplitIndex
from coopmap.evaluation.baselines import read_sensor_poses
from coopmap.evaluation.icp import register_sweeps
from coopmap.metrics import pair_errors

pytest.importorskip("small_gicp")


def errors(poses: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = pair_errors(torch.from_numpy(poses)[None], torch.from_numpy(true)[None])
    return pairs["trans_m"][0].numpy(), pairs["rot_deg"][0].numpy()


def test_sweeps_bring_gps_from_meters_to_centimeters(town: Path) -> None:
    before, after = [], []
    for split in ("train", "val", "test"):
        index = SplitIndex.build(town / "town", split)
        for number in range(len(index)):
            frame = index.frame(number)
            found = read_sensor_poses(index, frame, frame.agents[:3], with_icp=True)
            assert found.gps_icp is not None
            assert found.registered > 0
            np.testing.assert_allclose(found.gps_icp[0], np.eye(4), atol=1e-9)
            before.append(errors(found.gps, found.true))
            after.append(errors(found.gps_icp, found.true))
    trans_before, trans_after = (np.concatenate([trans for trans, _ in parts]) for parts in (before, after))
    rot_after = np.concatenate([rot for _, rot in after])
    assert trans_before.mean() > 1.0
    assert trans_after.max() < 0.3
    assert rot_after.max() < 0.5


def test_agents_that_share_nothing_keep_their_gps() -> None:
    rng = np.random.default_rng(0)
    near = rng.uniform((-20, -2, -20), (20, 2, 20), size=(4000, 3)).astype(np.float32)
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, 2, 3] = 500.0
    registered, count = register_sweeps([near, near], poses)
    assert count == 0
    np.testing.assert_allclose(registered, poses, atol=1e-9)


STREET = np.random.default_rng(1).uniform(-30, 30, (3000, 3))
STREET[:1500, 1] = 1.9
STREET[1500:2300, 0], STREET[2300:, 2] = 9, 12


def degenerate_sweeps() -> dict[str, np.ndarray]:
    line = np.linspace(-30, 30, 2000)[:, None]
    return {
        "no points": np.zeros((0, 3)),
        "one point": np.full((1, 3), 5.0),
        "few points": STREET[::160],
        "one place": np.full((2000, 3), 5.0),
        "a line": line * [1.0, 0.0, 0.0] + [0.0, -2.0, 5.0],
        "a slanting line": line * [1.0, 0.3, -0.7] + [0.0, -2.0, 25.0],
        "not finite": np.where(STREET[:, :1] > 0, np.nan, np.inf) * STREET,
        "own car": 0.01 * STREET + [0.0, 1.0, 0.0],
    }


@settings(max_examples=5)
@given(st.integers(0, 2**32 - 1))
def test_degenerate_sweeps_keep_their_gps(seed: int) -> None:
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, :3, 3] = np.random.default_rng(seed).uniform(-1, 1, 3)
    for name, sweep in degenerate_sweeps().items():
        for sweeps in ([STREET, sweep], [sweep, STREET], [sweep, sweep]):
            registered, count = register_sweeps([points.astype(np.float32) for points in sweeps], poses)
            assert count == 0, name
            np.testing.assert_allclose(registered, np.linalg.inv(poses[0]) @ poses, atol=1e-9, err_msg=name)


def test_points_that_are_not_finite_are_left_out() -> None:
    rough = np.tile(np.eye(4), (2, 1, 1))
    rough[1, :3, 3] = [0.4, 0.1, -0.3]
    dirty = np.concatenate([STREET, np.full((50, 3), np.nan), [[np.inf, 0, 0]]])
    registered, count = register_sweeps([STREET, dirty], rough)
    assert count == 1
    np.testing.assert_allclose(registered[1], np.eye(4), atol=0.01)


def test_an_agent_without_a_pose_gets_none_and_leaves_the_others_alone() -> None:
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[1, :3, 3] = [0.4, 0.1, -0.3]
    poses[2] = np.nan
    registered, count = register_sweeps([STREET] * 3, poses)
    assert count == 1
    np.testing.assert_allclose(registered[1], np.eye(4), atol=0.01)
    assert np.isnan(registered[2]).all()
