import roma
import torch

from coopmap.geometry import (
    invert,
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
    points = torch.randn(3, 7, 3, dtype=torch.float64)
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
