"""Sums in blocks and the derivatives written by hand, against plain autograd."""

import pytest
import torch

from coopmap.benchmarks.loss import OperationCounter
from coopmap.config.loss import LossConfig
from coopmap.losses import Criterion, blocks, geometry, normalized, normals, pixels, surface
from coopmap.losses.normals import _Angles, normal_angle_loss
from coopmap.losses.robust import log_length, robust_log_maps, robust_loss, robust_maps
from coopmap.losses.surface import gradient_matching_loss


def doubles(*shape, seed=0, low=-1.0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)).requires_grad_()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [0.5, 1.9])
def test_derivatives_of_robust_maps(channels, alpha):
    cfg = LossConfig(robust_alpha=alpha)
    prediction, truth = doubles(2, 5, channels), doubles(2, 5, channels, seed=1).detach()
    unit, true_unit = doubles(2, low=1, high=2), doubles(2, seed=2, low=1, high=2).detach()
    assert torch.autograd.gradcheck(lambda p: robust_maps(p, truth, cfg), prediction)
    assert torch.autograd.gradcheck(lambda p, u: robust_log_maps(p, u, truth, true_unit, cfg), (prediction, unit))
    expected = robust_loss(
        log_length(prediction / unit[:, None, None]), log_length(truth / true_unit[:, None, None]), cfg
    )
    torch.testing.assert_close(robust_log_maps(prediction, unit, truth, true_unit, cfg), expected)
    torch.testing.assert_close(robust_maps(prediction, truth, cfg), robust_loss(prediction, truth, cfg))


def test_vectors_of_no_length_have_a_finite_gradient():
    zero, unit = torch.zeros(1, 2, 3, requires_grad=True), torch.ones(1)
    robust_log_maps(zero, unit, torch.ones(1, 2, 3), unit, LossConfig()).sum().backward()
    assert zero.grad.isfinite().all()


def test_derivative_of_angles_between_normals():
    prediction, truth = doubles(4, 5, 3), doubles(4, 5, 3, seed=1).detach()
    counted = torch.rand(2, 2, 3, 4, generator=torch.Generator().manual_seed(2)) < 0.8
    assert torch.autograd.gradcheck(lambda points: _Angles.apply(points, truth, counted), prediction, eps=1e-7)


@pytest.mark.parametrize("pixels_of_a_block", [1, 40, 1 << 20])
@pytest.mark.parametrize("loss", [normal_angle_loss, gradient_matching_loss], ids=lambda function: function.__name__)
def test_sums_and_gradients_do_not_depend_on_the_blocks(monkeypatch, loss, pixels_of_a_block):
    channels = 3 if loss is normal_angle_loss else 1
    prediction, truth = doubles(2, 2, 9, 16, channels), doubles(2, 2, 9, 16, channels, seed=1).detach()
    mask = doubles(2, 2, 9, 16, seed=2).detach() > -0.5
    mask[1, 0] = False
    expected = loss(prediction, truth, mask)
    (gradient,) = torch.autograd.grad(expected[0] + 2 * expected[1], prediction)
    monkeypatch.setitem(blocks.BLOCK_PIXELS, "cpu", pixels_of_a_block)
    found = loss(prediction, truth, mask)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found[0] + 2 * found[1], prediction)[0], gradient)
    assert gradient[1, 0].abs().max() == 0
    if pixels_of_a_block == 40:
        monkeypatch.setattr(blocks, "_is_known_empty", lambda mask: False)  # as on a GPU
        torch.testing.assert_close(loss(prediction, truth, mask), expected)
        assert torch.autograd.gradcheck(lambda points: loss(points, truth, mask), prediction, eps=1e-8, fast_mode=True)


def plain_sum_rows(function, maps, of_views=(), where=None, halo=0, whole_views=False):
    """What :func:`coopmap.losses.blocks.sum_rows` computes, at once and by autograd."""
    shape = maps[0].shape[:3]
    repeated = [value[:, :, None].expand(shape).flatten() for value in of_views]
    found = function(*(each.flatten(0, 2) for each in maps), *repeated)
    found = found if isinstance(found, tuple) else (found,)
    missing = shape.numel() - len(found[0])
    return tuple(torch.nn.functional.pad(sums, (0, missing)).view(shape).sum(-1) for sums in found)


def test_the_objective_keeps_its_gradients_alone(make_full_scene, every_term, monkeypatch):
    """Same total and gradients as plain autograd, which keeps several times as much for the backward pass."""
    prediction, target = make_full_scene(3, height=28, width=56)

    def run():
        leaves = prediction.map(lambda tensor: tensor.detach().requires_grad_())
        with OperationCounter() as counter:
            total, _ = Criterion(every_term())(leaves, target, teacher=prediction)
            kept = counter.live_bytes
            total.backward()
        return total, kept, leaves

    monkeypatch.setitem(blocks.BLOCK_PIXELS, "cpu", 500)
    total, kept, leaves = run()
    for module in (geometry, normalized, normals, pixels, surface):
        monkeypatch.setattr(module, "sum_rows", plain_sum_rows)
    plain_total, plain_kept, plain_leaves = run()
    torch.testing.assert_close(total, plain_total)
    for name in ("points_world", "points_view", "depth", "rays", "confidence", "mask_logits", "pose_trans", "scale"):
        torch.testing.assert_close(
            getattr(leaves, name).grad, getattr(plain_leaves, name).grad, rtol=1e-4, atol=1e-7, msg=name
        )
    assert kept < plain_kept / 1.5
