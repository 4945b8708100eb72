import subprocess
import sys

import pytest
import roma
import torch
from hypothesis import given
from hypothesis import strategies as st

from coopmap.geometry import (
    invert,
    nearest_rotation,
    pose_from_quat_trans,
    quat_trans_from_pose,
    relative_pose,
    rotate,
    rotation_angle,
    transform_points,
)


def random_poses(*batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    quat = torch.nn.functional.normalize(torch.randn(*batch, 4, generator=generator, dtype=torch.float64), dim=-1)
    return pose_from_quat_trans(quat, 10 * torch.randn(*batch, 3, generator=generator, dtype=torch.float64))


def test_inverse_and_relative_pose():
    pose = random_poses(2, 5)
    torch.testing.assert_close(invert(pose) @ pose, torch.eye(4, dtype=torch.float64).expand(2, 5, 4, 4))
    a, b = pose[0], pose[1]
    torch.testing.assert_close(a @ relative_pose(a, b), b)


def test_points_translate_and_directions_do_not():
    pose = random_poses(3)
    points = torch.randn(3, 7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = transform_points(pose, points)
    expected = torch.stack([(p @ torch.cat([q, q.new_ones(1)]))[:3] for p, q in zip(pose, points[:, 0], strict=True)])
    torch.testing.assert_close(moved[:, 0], expected)
    torch.testing.assert_close(rotate(pose, points), moved - pose[:, None, :3, 3])


def test_quaternions_are_xyzw_with_positive_w():
    quarter_turn_about_y = torch.tensor([0.0, 0.5**0.5, 0.0, 0.5**0.5])
    pose = pose_from_quat_trans(-quarter_turn_about_y, torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(pose[:3, 0], torch.tensor([0.0, 0.0, -1.0]), atol=1e-6, rtol=0)
    quat, trans = quat_trans_from_pose(pose)
    torch.testing.assert_close(quat, quarter_turn_about_y)
    assert trans.tolist() == [1.0, 2.0, 3.0]


def test_rotation_angle_is_exact_near_zero_and_pi():
    for angle in (0.0, 1e-6, 1.0, 3.14159):
        rotation = roma.rotvec_to_rotmat(torch.tensor([0.0, angle, 0.0], dtype=torch.float64))
        torch.testing.assert_close(rotation_angle(rotation).item(), angle, atol=1e-9, rtol=0)


def half_turns_apart(seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Four rotations: any one, and the same after half a turn about each of three axes of any frame."""
    rotations = random_rotations(seed, 2)
    half = torch.diag_embed(torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64))
    return (rotations[0] @ rotations[1] @ half @ rotations[1].mT).to(dtype)


def random_rotations(seed: int, number: int) -> torch.Tensor:
    quat = torch.randn(number, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return roma.unitquat_to_rotmat(torch.nn.functional.normalize(quat, dim=-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(seed=st.integers(0, 2**31))
def test_rotations_that_cancel_have_no_mean(dtype, seed):
    """Two half a turn apart, or all four; with three of them, the mean is minus the fourth, which is as near to any."""
    rotations = half_turns_apart(seed, dtype)
    for some in (rotations[:2], rotations[2:], rotations, rotations[:3], rotations[[0, 0, 1, 1]]):
        assert nearest_rotation(some.mean(dim=0)).isnan().all()
    assert nearest_rotation(torch.full((2, 3, 3), torch.inf, dtype=dtype)).isnan().all()
    one_more = torch.cat([rotations[:2], rotations[:1]]).mean(dim=0)  # two against one
    torch.testing.assert_close(nearest_rotation(one_more), rotations[0], atol=10 * torch.finfo(dtype).eps, rtol=0)


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_the_nearest_rotation_is_found_at_any_scale(seed, scale):
    rotations = random_rotations(seed, 3)
    torch.testing.assert_close(nearest_rotation(scale * rotations), rotations, atol=1e-12, rtol=0)
    bent = rotations @ (torch.eye(3) + torch.diag(torch.tensor([0.1, -0.2, 0.3]))).double()  # symmetric stretch
    torch.testing.assert_close(nearest_rotation(bent), rotations, atol=1e-12, rtol=0)


def test_a_rotation_is_differentiated_after_one_in_inference_mode():
    """In a process of its own: validation before the first training step."""
    program = (
        "import torch; from coopmap.geometry.se3 import nearest_rotation as nearest\n"
        "matrix = torch.eye(3) + 0.1 * torch.ones(3, 3).triu()\n"
        "with torch.inference_mode(): first = nearest(matrix)\n"
        "with torch.no_grad(): assert not nearest(matrix.clone().requires_grad_()).requires_grad\n"
        "again = matrix.clone().requires_grad_()\n"
        "nearest(again)[0, 1].backward()\n"
        "assert again.grad.abs().max() > 0\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
