"""Alignment and bundle on a CUDA GPU give the CPU's poses."""

import pytest
import torch

from coopmap.geometry.alignment import align
from coopmap.geometry.bundle import bundle

from .test_bundle import assert_same, equal_shares, level_poses, moved_a_little, seen_points

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.parametrize("noisy", [False, True])
def test_a_bundle(noisy):
    pose = level_poses(0, frames=3)
    given = (moved_a_little(pose, 0), equal_shares(pose), *seen_points(pose, 0, noisy=noisy, wrong=6))
    on_cpu = bundle(*given, tilt_sigma=0.05)
    assert_same(bundle(*(value.cuda() for value in given), tilt_sigma=0.05).cpu(), on_cpu)


@pytest.mark.parametrize("noisy", [False, True])
def test_an_alignment_with_wrong_matches(noisy):
    """The search considers the same hypotheses on both devices."""
    seen = [value.flatten(0, 1) for value in seen_points(level_poses(1, frames=3), 1, noisy=noisy, wrong=20)]
    on_cpu = align(*seen)
    on_gpu = align(*(value.cuda() for value in seen))
    assert_same(on_gpu.pose.cpu(), on_cpu.pose, 1e-4)
