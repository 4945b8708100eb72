"""Steps of poses: the rotation, and what their constants compute."""

import pytest
import roma
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from coopmap.geometry.alignment import align
from coopmap.geometry.pose_averaging import average_relative_poses
from coopmap.geometry.step_algebra import cayley, constants_of, identity, unless_too_large

AXES = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_cayley_gives_rotations():
    rotation = cayley(AXES)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand(20, 3, 3), atol=1e-14, rtol=0)
    angle = 2 * (AXES.norm(dim=-1) / 2).atan()
    torch.testing.assert_close(rotation, roma.rotvec_to_rotmat(AXES / AXES.norm(dim=-1, keepdim=True) * angle[:, None]))


def test_cayley_agrees_with_the_exponential_up_to_second_order():
    small = AXES / AXES.norm(dim=-1, keepdim=True)
    errors = [(cayley(size * small) - roma.rotvec_to_rotmat(size * small)).abs().max() for size in (0.02, 0.01)]
    assert errors[0] < 0.02**3 / 12 * 1.01
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.01)


def test_constants_are_those_of_the_jacobian():
    """``J = [-[x]x, I]``."""
    (x, force), constants = AXES[:2], constants_of(AXES)
    cross = torch.linalg.cross(x.expand(3, 3), torch.eye(3).double()).mT
    torch.testing.assert_close((x @ constants.cross).view(3, 3), cross)
    jacobian, precision = torch.cat([-cross, torch.eye(3)], dim=1), AXES[2:5].mT @ AXES[2:5]
    h = torch.cat([torch.ones(1), x])
    torch.testing.assert_close(torch.outer(h, force).flatten() @ constants.jacobian, jacobian.mT @ force)
    moments = torch.einsum("k,l,mn->klmn", h, h, precision).flatten()
    squared = (moments @ constants.squared_jacobian).view(6, 6)
    torch.testing.assert_close(squared, jacobian.mT @ precision @ jacobian)
    tilt = (torch.outer(x, x).flatten() @ constants.squared_tilt).view(6, 6)
    torch.testing.assert_close(tilt[:3, :3], cross @ cross.mT)
    assert tilt[3:].eq(0).all()
    assert tilt[:, 3:].eq(0).all()


@pytest.mark.parametrize("large", [(0, 3.2), (5, 1e5), (2, torch.nan), (4, -torch.inf)])
def test_a_large_step_is_not_taken(large):
    steps = torch.ones(2, 2, 6, dtype=torch.float64)
    steps[1, 0, large[0]] = large[1]
    taken = unless_too_large(steps)
    assert taken[0].eq(1).all()
    assert taken[1].eq(0).all()


def test_constants_are_kept_but_not_those_of_tensors_without_content():
    with FakeTensorMode():
        assert type(identity(11, torch.ones(1))) is not torch.Tensor
    with torch.inference_mode():
        kept = identity(11, torch.ones(1))
    assert type(kept) is torch.Tensor
    assert not kept.is_inference()
    assert identity(11, torch.ones(1)) is kept


class Operations(TorchDispatchMode):
    """Counts all but views; each of them a GPU has to be told to start."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += not func.is_view
        return func(*args, **(kwargs or {}))


def test_an_alignment_starts_few_operations():
    """Time on a GPU is their number, whatever the size of the problem."""
    points = torch.randn(1, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weight = torch.ones(1, 8, dtype=torch.float64)
    align(points, points.detach(), weight, tilt_sigma=0.1)  # makes constants
    with Operations() as forward:
        pose = align(points, points.detach(), weight, tilt_sigma=0.1).pose
    with Operations() as backward:
        pose.sum().backward()
    assert forward.number < 2000
    assert backward.number < 750  # PyTorch 2.6 takes 727


def test_an_average_starts_few_operations():
    relative = torch.eye(4, dtype=torch.float64).repeat(2, 1, 4, 4, 1, 1)
    weight = torch.ones(2, 1, 4, 4, dtype=torch.float64)
    average_relative_poses(relative, weight)  # makes constants
    with Operations() as counted:
        average_relative_poses(relative, weight)
    assert counted.number < 1500
