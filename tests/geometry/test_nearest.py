import pytest
import torch

from coopmap.geometry import nearest as module
from coopmap.geometry.nearest import nearest


@pytest.mark.parametrize("block", [7, 40, 1 << 20])
def test_the_nearest_of_all_known_points_whatever_the_size_of_blocks(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.BLOCK, "cpu", block)
    generator = torch.Generator().manual_seed(0)
    points = 30 * torch.randn(2, 3, 5, 3, generator=generator)
    others = 30 * torch.randn(2, 3, 8, 3, generator=generator)
    known = torch.rand(2, 3, 8, generator=generator) < 0.5
    known[1, 2] = False
    distance, which = nearest(points, others, known)
    all_pairs = (points[..., :, None, :].double() - others[..., None, :, :].double()).norm(dim=-1)
    expected = all_pairs.masked_fill(~known[..., None, :], torch.inf).min(dim=-1)
    assert torch.equal(which, expected.indices)
    torch.testing.assert_close(distance.double(), expected.values, rtol=1e-6, atol=0)
    assert distance[1, 2].isinf().all()
