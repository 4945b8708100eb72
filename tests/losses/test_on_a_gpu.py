"""Upstream's numbers on a CUDA GPU too."""

import pytest
import torch

from .test_criterion_golden import CRITERIA, criterion  # noqa: F401  (a fixture)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.parametrize("name", CRITERIA)
def test_total_and_gradients(name, criterion, expected, golden_prediction, golden_target):  # noqa: F811
    """The total is upstream's; gradients are those of the CPU."""
    gradients = []
    for device in ("cpu", "cuda"):
        leaves = {key: value for key, value in vars(golden_prediction).items() if isinstance(value, torch.Tensor)}
        leaves = {key: value.detach().to(device).requires_grad_() for key, value in leaves.items()}
        total, _ = criterion.to(device)(type(golden_prediction)(**leaves), golden_target.to(device))
        torch.testing.assert_close(total.item(), expected[name]["loss"], rtol=1e-4, atol=0)
        gradients.append(torch.autograd.grad(total, list(leaves.values()), materialize_grads=True, allow_unused=True))
    for on_cpu, on_gpu in zip(*gradients, strict=True):
        torch.testing.assert_close(on_gpu.norm().cpu(), on_cpu.norm(), rtol=1e-3, atol=1e-8)
