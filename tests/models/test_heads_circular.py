"""The dense head on rings: a panorama has no first column."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coopmap.models.addons.circular import join_edges
from coopmap.models.heads import DenseHead, DPTFeature, DPTRegressor, resize
from coopmap.models.rings import resize_ring, wrap

from .support import load_config

PATCH = 14
INPUT_DIMS = [24, 16, 16, 16]
V1_LAYER_DIMS = [96, 192, 384, 768]


def make_head(circular: bool, checkpointing: bool = False, layer_dims: list[int] | None = None) -> DenseHead:
    torch.manual_seed(0)
    feature_dim = 16 if layer_dims is None else 256
    feature = DPTFeature(INPUT_DIMS, layer_dims or [8, 12, 16, 24], feature_dim, checkpointing)
    head = DenseHead(feature, DPTRegressor(feature_dim, checkpointing)).double()
    if circular:
        join_edges(head)
    return head


def make_levels(rows: int, columns: int, maps: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(maps, dim, rows, columns, generator=generator, dtype=torch.float64) for dim in INPUT_DIMS]


def predict(head: DenseHead, levels: list[torch.Tensor]) -> torch.Tensor:
    rows, columns = levels[0].shape[-2:]
    return head(levels, (PATCH * rows, PATCH * columns))[0]


def rolled(maps: list[torch.Tensor], columns: int) -> list[torch.Tensor]:
    return [one.roll(columns, dims=-1) for one in maps]


@settings(max_examples=15)
@given(rows=st.integers(1, 4), columns=st.integers(1, 9), shift=st.integers(-9, 9))
@torch.no_grad()
def test_rolling_the_patches_rolls_the_pixels(rows, columns, shift):
    """By any number of patches, odd ones too, on rings of even and odd length."""
    head, levels = make_head(circular=True), make_levels(rows, columns)
    expected = predict(head, levels).roll(PATCH * shift, dims=-1)
    torch.testing.assert_close(predict(head, rolled(levels, shift)), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shift", [1, 2])
@torch.no_grad()
def test_single_precision_and_the_size_of_the_released_head(shift):
    head = make_head(circular=True, layer_dims=V1_LAYER_DIMS).float()
    levels = [level.float() for level in make_levels(2, 8, maps=1)]
    expected = predict(head, levels)
    assert expected.std() > 1e-2
    torch.testing.assert_close(
        predict(head, rolled(levels, shift)), expected.roll(PATCH * shift, dims=-1), rtol=0, atol=1e-4
    )


@torch.no_grad()
def test_without_the_option_the_seam_is_special():
    head, levels = make_head(circular=False), make_levels(3, 8)
    difference = predict(head, rolled(levels, 2)) - predict(head, levels).roll(2 * PATCH, dims=-1)
    assert difference.abs().max() > 0.1 * predict(head, levels).std()


def steps(output: torch.Tensor) -> torch.Tensor:
    """Mean change from each column of log depth to the next, the last to the first; the last one is the seam."""
    log_depth = output[:, 3]
    return (log_depth.roll(-1, dims=-1) - log_depth).abs().mean(dim=(0, 1))


@torch.no_grad()
def test_the_depth_step_across_the_seam_vanishes():
    """Features that vary smoothly around the horizon: only the padding knows where the image is cut open."""
    azimuth = 2 * torch.pi * (torch.arange(24, dtype=torch.float64) + 0.5) / 24
    levels = [
        torch.stack([torch.sin(azimuth + phase) for phase in torch.linspace(0, 6, dim)])[None, :, None].repeat(
            1, 1, 6, 1
        )
        for dim in INPUT_DIMS
    ]
    padded, wrapped = (steps(predict(make_head(circular), levels)) for circular in (False, True))
    assert padded[-1] > 5 * padded[:-1].quantile(0.95)
    assert wrapped[-1] <= wrapped[:-1].max()
    assert wrapped[-1] < 0.1 * padded[-1]


def test_parameters_are_those_of_the_ordinary_head():
    ordinary, circular = make_head(False).state_dict(), make_head(True).state_dict()
    assert ordinary.keys() == circular.keys()
    assert all(torch.equal(ordinary[name], circular[name]) for name in ordinary)


@pytest.mark.parametrize("columns", [7, 8])
def test_checkpointing_and_groups_of_views_change_nothing(columns):
    levels = make_levels(3, columns, maps=5)
    gradients = []
    for checkpointing in (False, True):
        head = make_head(True, checkpointing)
        predict(head, levels).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in head.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.any(), name
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)
    whole = predict(head, levels).detach()
    head.max_maps_at_once = 2
    with torch.no_grad():
        torch.testing.assert_close(predict(head, levels), whole)


@torch.no_grad()
def test_wrapping_convolution_is_the_middle_of_a_convolution_over_three_turns():
    torch.manual_seed(0)
    wrapping, ordinary = torch.nn.Conv2d(2, 3, 3, padding=1), torch.nn.Conv2d(2, 3, 3, padding=1)
    wrap(wrapping)
    ordinary.load_state_dict(wrapping.state_dict())
    x = torch.randn(1, 2, 4, 6)
    expected = ordinary(torch.cat([x, x, x], dim=-1))[..., 6:12]
    torch.testing.assert_close(wrapping(x), expected)


@pytest.mark.parametrize(("width", "resized"), [(8, 16), (8, 14), (56, 98), (3, 7), (6, 4), (5, 5)])
def test_a_resized_ring_keeps_every_angle(width, resized):
    """Linear interpolation by hand: pixel centers at the same fractions of the circumference, modulo a full turn."""
    ring = np.random.default_rng(0).standard_normal(width)
    x = torch.from_numpy(ring)[None, None, None].expand(1, 1, 5, width)
    position = (np.arange(resized) + 0.5) * width / resized - 0.5
    expected = np.interp(position, np.arange(-width, 2 * width), np.tile(ring, 3))
    result = resize_ring(x, (9, resized))
    np.testing.assert_allclose(result[0, 0], np.tile(expected, (9, 1)), atol=1e-12)


def test_rows_are_resized_as_in_the_ordinary_head():
    rows = torch.randn(1, 2, 5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).expand(1, 2, 5, 4)
    torch.testing.assert_close(resize_ring(rows, (12, 7)), resize(rows, (12, 7)))


def test_the_option_reaches_the_model(tiny_config):
    from coopmap.models import MapAnything

    heads = dataclasses.replace(load_config("mapanything_tiny").heads, circular=True)
    model = MapAnything(dataclasses.replace(tiny_config, heads=heads))
    threes = [part for part in model.dense_head.modules() if getattr(part, "kernel_size", None) == (3, 3)]
    assert threes
    assert all(part.padding == (1, 0) and len(part._forward_pre_hooks) == 1 for part in threes)
    generator = torch.Generator().manual_seed(0)
    dims = [tiny_config.encoder.dim, *[tiny_config.info_sharing.dim] * 3]
    levels = [torch.randn(1, dim, 2, 5, generator=generator) for dim in dims]
    with torch.no_grad():
        expected = predict(model.dense_head, levels).roll(PATCH, dims=-1)
        torch.testing.assert_close(predict(model.dense_head, rolled(levels, 1)), expected, rtol=0, atol=1e-4)
