import pytest
import torch

from coopmap.models.heads import DenseHead, DPTFeature, DPTRegressor


@pytest.fixture
def head() -> DenseHead:
    torch.manual_seed(0)
    return DenseHead(DPTFeature([24, 16, 16, 16], [8, 12, 16, 24], 16), DPTRegressor(16))


@pytest.fixture
def levels() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, dim, 3, 7, generator=generator) for dim in (24, 16, 16, 16)]


def group_sizes(head: DenseHead) -> list[int]:
    sizes: list[int] = []
    head[1].register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    return sizes


@pytest.mark.parametrize(("at_once", "groups"), [(1, [1] * 5), (2, [2, 2, 1]), (8, [5]), (None, [1] * 5)])
def test_groups_of_views_give_the_same_output(head, levels, at_once, groups):
    whole, kept = head(levels, (42, 98), keep=lambda fused: fused.mean(dim=1))
    head.max_maps_at_once = at_once
    sizes = group_sizes(head)
    with torch.inference_mode():
        output, kept_by_groups = head(levels, (42, 98), keep=lambda fused: fused.mean(dim=1))
    assert sizes == groups
    assert kept.shape == (5, 24, 56)
    torch.testing.assert_close((output, kept_by_groups), (whole, kept), rtol=1e-5, atol=1e-6)


def test_training_takes_all_views_at_once(head, levels):
    head.max_maps_at_once = 1
    sizes = group_sizes(head)
    output, kept = head(levels, (42, 98))
    assert kept is None
    output.sum().backward()
    assert sizes == [5]
