"""Compiled targets beside whole-array numpy."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopmap.geometry.cameras import PinholeCamera, camera_rays
from coopmap.geometry.rig import Rig
from coopmap.geometry.targets import NearestPixels, content_geometry

HEIGHT, WIDTH = 5, 24
SIZE = (7, 11)


def rig_of(rng: np.random.Generator) -> Rig:
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, :3, :3] = np.linalg.qr(rng.normal(size=(3, 3, 3)))[0]
    poses[:, :3, 3] = rng.normal(size=(3, 3))
    focal = rng.uniform(5, 9, 3)
    intrinsics = np.array([[[f, 0, 5.2], [0, 1.1 * f, 3.4], [0, 0, 1]] for f in focal])
    return Rig(intrinsics, poses, SIZE, 1.9)


def in_whole_arrays(pixels, rig, depths, nominal, shift):
    """The same as formulas over arrays, in double precision."""
    tables = [camera_rays(PinholeCamera(matrix, *SIZE)) for matrix in rig.intrinsics]
    points = np.stack(tables) * depths[..., None]
    points = np.einsum("kij,khwj->khwi", rig.agent_from_camera[:, :3, :3], points)
    points += rig.agent_from_camera[:, None, None, :3, 3]
    shown = points.reshape(3, -1, 3)[pixels.winner, pixels.source]
    known = (pixels.winner >= 0) & (depths.reshape(3, -1)[pixels.winner, pixels.source] > 0)
    shown, known = np.roll(shown, -shift, axis=1), np.roll(known, -shift, axis=1)
    ranges = np.where(known, np.linalg.norm(shown, axis=-1), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(known[..., None], shown / ranges[..., None], nominal), ranges


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), shift=st.integers(0, WIDTH - 1), unseen=st.sampled_from([0.0, 0.3, 1.0]))
def test_targets_are_those_of_whole_arrays(seed, shift, unseen):
    rng = np.random.default_rng(seed)
    rig = rig_of(rng)
    winner = np.repeat(rng.integers(0, 3, (HEIGHT, WIDTH // 4)), 4, axis=1).astype(np.int8)
    winner[rng.random(winner.shape) < unseen] = -1
    source = rng.integers(0, SIZE[0] * SIZE[1], winner.shape).astype(np.int32)
    pixels = NearestPixels(winner, np.where(winner < 0, -1, source).astype(np.int32))
    depths = (rng.uniform(1, 60, (3, *SIZE)) * (rng.random((3, *SIZE)) < 0.8)).astype(np.float32)
    nominal = rng.normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
    rays, ranges = content_geometry(pixels, rig, depths, nominal, shift)
    expected_rays, expected_ranges = in_whole_arrays(pixels, rig, depths, nominal, shift)
    np.testing.assert_allclose(ranges, expected_ranges, rtol=1e-5)
    np.testing.assert_array_equal(ranges > 0, expected_ranges > 0)
    np.testing.assert_allclose(rays, expected_rays, atol=1e-5)
    np.testing.assert_array_equal(rays[ranges == 0], nominal[ranges == 0])


def test_depth_of_another_size_is_refused():
    """Compiled code does not look where it reads."""
    rig = rig_of(np.random.default_rng(0))
    pixels = NearestPixels(np.zeros((2, 3), np.int8), np.zeros((2, 3), np.int32))
    with pytest.raises(ValueError, match=r"expected depth of \(7, 11\)"):
        content_geometry(pixels, rig, np.ones((3, 6, 11), np.float32), np.zeros((2, 3, 3), np.float32))
    with pytest.raises(ValueError, match=r"expected depth of \(8, 11\)"):
        content_geometry(
            pixels, replace(rig, image_size=(8, 11)), np.ones((3, *SIZE), np.float32), np.zeros((2, 3, 3), np.float32)
        )
