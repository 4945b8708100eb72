"""Averages of 8 bits: a quarter of the memory, plain checkpoints, and steps that are not finite left out."""

import importlib
import importlib.abc
import io
import sys

import pytest
import torch
from torch import nn

from coopmap import load_config
from coopmap.config import ConfigError
from coopmap.config.train import OptimConfig
from coopmap.planning.state import state_bytes
from coopmap.training.optim import build_optimizer

CFG = OptimConfig(lr=1e-2, state_bits=8)


@pytest.fixture(autouse=True)
def _eager() -> object:
    """torchao compiles its step; here it need not. Its newest release needs a newer PyTorch than the oldest of ours."""
    try:
        importlib.import_module("torchao.optim")
    except (ImportError, AttributeError) as error:
        pytest.skip(f"no torchao for this PyTorch: {error}")
    with torch.compiler.set_stance("force_eager"):
        yield


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(1, 64)).square().sum().backward()
        optimizer.step()


def plain_bytes(value: object) -> int:
    parts = value.values() if isinstance(value, dict) else [value]
    return sum(part.nbytes for part in parts if isinstance(part, torch.Tensor))


def test_it_goes_on_from_a_checkpoint_of_plain_tensors_as_if_nothing_had_been() -> None:
    model = nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 8))
    optimizer = build_optimizer(model, CFG)
    stepped(model, optimizer, 2)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    kept = sum(plain_bytes(value) for state in saved["optimizer"]["state"].values() for value in state.values())
    assert kept == state_bytes(model, CFG, "ddp", 2).optimizer
    other = nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 8))
    other.load_state_dict(saved["model"])
    continued = build_optimizer(other, CFG)
    continued.load_state_dict(saved["optimizer"])
    stepped(model, optimizer, 2)
    stepped(other, continued, 2)
    for mine, others in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, others)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    model = nn.Linear(64, 128)
    optimizer = build_optimizer(model, CFG)
    before = model.weight.clone()
    optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]
    stepped(model, optimizer, 1)
    assert torch.equal(model.weight, before)
    optimizer.found_inf = torch.zeros(())  # type: ignore[attr-defined]
    stepped(model, optimizer, 1)
    assert not torch.equal(model.weight, before)


def test_what_is_missing_and_what_does_not_go_together_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"strategy=ddp takes 8"):
        load_config(["machine=local3090", "optim.state_bits=8"])
    assert load_config(["machine=local3090", "optim.state_bits=8", "strategy=ddp"]).optim.state_bits == 8
    monkeypatch.delitem(sys.modules, "coopmap.training.eight_bit", raising=False)
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(ConfigError, match=r"pip install coopmap\[eight-bit\]"):
        build_optimizer(nn.Linear(2, 2), CFG)


def test_a_torchao_that_is_ahead_of_pytorch_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing it ends with a name that PyTorch has not."""

    class Ahead(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, *_: object) -> None:
            if name == "torchao.optim":
                raise AttributeError("module 'torch.utils._pytree' has no attribute 'register_constant'")

    monkeypatch.delitem(sys.modules, "coopmap.training.eight_bit", raising=False)
    monkeypatch.delitem(sys.modules, "torchao.optim", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Ahead(), *sys.meta_path])
    with pytest.raises(ConfigError, match=r"does not fit PyTorch .*register_constant"):
        build_optimizer(nn.Linear(2, 2), CFG)
