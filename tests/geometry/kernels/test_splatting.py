"""The compiled central geometry beside whole-array numpy, which it took the place of."""

from dataclasses import replace

import numpy as np
import pytest

from coopmap.geometry.cameras import PanoramaCamera, PinholeCamera, camera_rays
from coopmap.geometry.central import PLANARITY, central_geometry
from coopmap.geometry.kernels.splatting import LARGEST_SIDE, atan_of_unit
from coopmap.geometry.panorama import surface_range_from

EQUIRECT = PanoramaCamera(63, 252, np.pi / 2)
CYLINDER = PanoramaCamera(50, 200, np.deg2rad(80), projection="cylinder")
STEEP = PanoramaCamera(80, 180, np.deg2rad(160), np.deg2rad(5))


def in_whole_arrays(camera, rig, depths):
    """Central geometry as formulas over arrays, in double precision."""
    nearest, found = np.full(camera.height * camera.width, np.inf), np.zeros(camera.height * camera.width)
    nominal = camera_rays(camera).reshape(-1, 3)
    for depth, intrinsics, pose in zip(depths, rig.intrinsics, rig.agent_from_camera, strict=True):
        rays = camera_rays(PinholeCamera(intrinsics, *rig.image_size))
        points = rays * depth[..., None]
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1 / points[..., 2]
            inner = inverse[1:-1, 1:-1]
            across = np.abs(inverse[1:-1, 2:] + inverse[1:-1, :-2] - 2 * inner) < PLANARITY * inner
            along = np.abs(inverse[2:, 1:-1] + inverse[:-2, 1:-1] - 2 * inner) < PLANARITY * inner
        row, column = np.nonzero(across & along)
        row, column = row + 1, column + 1
        # differences of the points beside and below are along the surface
        right = points[row, column + 1] - points[row, column - 1]
        down = points[row + 1, column] - points[row - 1, column]
        normal = np.cross(right, down) @ pose[:3, :3].T
        point = points[row, column] @ pose[:3, :3].T + pose[:3, 3]
        pixel, inside = camera.project(point)
        at = np.floor(pixel[inside]).astype(int) @ [1, camera.width]
        distance, normal, point = np.linalg.norm(point[inside], axis=-1), normal[inside], point[inside]
        carried = (normal * point).sum(-1) / (normal * nominal[at]).sum(-1)
        for index in np.lexsort((distance, at))[::-1]:  # the nearest of a pixel last
            if distance[index] < nearest[at[index]]:
                nearest[at[index]] = distance[index]
                is_near = abs(carried[index] - distance[index]) < 0.1 * distance[index]
                found[at[index]] = carried[index] if is_near else 0
    return found.reshape(camera.height, camera.width)


@pytest.fixture
def small_rig(real_rig):
    scale = np.array([[0.15, 0, 0], [0, 0.15, 0], [0, 0, 1]])
    return replace(real_rig, intrinsics=scale @ real_rig.intrinsics, image_size=(90, 120))


def bowl_with_boxes(rig, seed):
    """Depth of a bowl with nearer squares in front of it and holes: planes, edges and unknown pixels."""
    rng, depths = np.random.default_rng(seed), []
    for intrinsics, pose in zip(rig.intrinsics, rig.agent_from_camera, strict=True):
        rays = camera_rays(PinholeCamera(intrinsics, *rig.image_size)) @ pose[:3, :3].T
        # off the center: of points at one range, rounding would decide which is the nearest
        origin = np.broadcast_to(pose[:3, 3] + [1.5, 0.0, 2.5], rays.shape)
        depth = surface_range_from(origin, rays, "bowl", 20.0, rig.ground_height_m)
        for _ in range(4):
            top, left = rng.integers(80), rng.integers(110)
            depth[top : top + 20, left : left + 20] *= rng.choice([0.0, 0.4, 0.8])
        depths.append(depth)
    return np.stack(depths).astype(np.float32)


@pytest.mark.parametrize("camera", [EQUIRECT, CYLINDER, STEEP], ids=["equirect", "cylinder", "steep"])
@pytest.mark.parametrize("seed", [0, 1])
def test_central_geometry_is_that_of_whole_arrays(small_rig, camera, seed):
    depths = bowl_with_boxes(small_rig, seed)
    expected = in_whole_arrays(camera, small_rig, depths)
    actual = central_geometry(camera, small_rig, depths, dense=True)
    assert (expected > 0).mean() > 0.3
    # at the borders between pixels, rounding decides which one a point falls into
    differ = np.abs(actual - expected) > 1e-3
    assert differ.sum() <= 3
    np.testing.assert_array_equal((actual > 0)[~differ], (expected > 0)[~differ])


def test_each_camera_has_intrinsics_of_its_own(small_rig):
    matrices = small_rig.intrinsics.copy()
    matrices[1, 0, 0] *= 1.2
    matrices[2, 1, 2] += 5
    rig = replace(small_rig, intrinsics=matrices)
    depths = bowl_with_boxes(rig, 2)
    differ = np.abs(central_geometry(EQUIRECT, rig, depths, dense=True) - in_whole_arrays(EQUIRECT, rig, depths)) > 1e-3
    assert differ.sum() <= 3


def test_of_points_of_two_cameras_the_nearer_wins(small_rig):
    """Two cameras in one place that see two walls, one behind the other."""
    poses = small_rig.agent_from_camera.copy()
    poses[1] = poses[0]
    rig = replace(small_rig, agent_from_camera=poses)
    depths = np.zeros((4, 90, 120), np.float32)
    for slot, wall_m in ((0, 20.0), (1, 12.0)):
        depths[slot] = wall_m / camera_rays(PinholeCamera(rig.intrinsics[slot], 90, 120))[..., 2]
    ranges = central_geometry(EQUIRECT, rig, depths, dense=True)
    ahead = ranges[31, 126]
    assert ahead == pytest.approx(12.0 + poses[0, 2, 3], abs=0.02)


def test_without_depth_nothing_is_known(small_rig):
    assert not central_geometry(EQUIRECT, small_rig, np.zeros((4, 90, 120), np.float32), dense=True).any()


def test_images_with_more_rows_than_have_numbers_are_refused(real_rig):
    depths = np.broadcast_to(np.float32(0), (4, LARGEST_SIDE + 1, 3))
    with pytest.raises(ValueError, match="at most 16384 pixels a side"):
        central_geometry(EQUIRECT, real_rig, depths, dense=True)


def test_the_arctangent_is_as_exact_as_it_says():
    quotients = np.linspace(-1, 1, 2001, dtype=np.float32)
    found = np.array([atan_of_unit(each) for each in quotients])
    assert np.abs(found - np.arctan(quotients.astype(float))).max() < 3.2e-7  # 2.5e-7 and rounding
