from pathlib import Path

import numpy as np
import pytest
import torch

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
            found = read_sensor_poses(index, frame, frame.agents[:3], icp=True)
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
