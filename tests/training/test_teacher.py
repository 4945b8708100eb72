from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coopmap import build_model, load_config
from coopmap.config import ConfigError
from coopmap.train import train
from coopmap.training.optim import build_optimizer
from coopmap.training.teacher import build_teacher

Overrides = Callable[..., list[str]]
ON = "loss.weights.scale_distillation=1.0"


def start_weights(folder: Path, overrides: list[str]) -> Path:
    file = folder / "start.pth"
    torch.save({"model": build_model(load_config(overrides)).state_dict()}, file)
    return file


def test_no_teacher_without_the_term_and_no_term_without_weights(overrides: Overrides) -> None:
    assert build_teacher(load_config(overrides())) is None
    with pytest.raises(ConfigError, match=r"loss\.weights\.scale_distillation=1\.0: .* set model\.weights"):
        build_teacher(load_config(overrides(ON)))


def test_a_run_learns_beside_a_teacher_that_stays_as_it_was(overrides: Overrides, tmp_path: Path) -> None:
    weights = start_weights(tmp_path, overrides())
    config = load_config(overrides(ON, f"model.weights={weights}", "trainer.max_epochs=1"))
    teacher = build_teacher(config)
    assert teacher is not None
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert not any(module.training for module in teacher.model.modules())

    result = train(config)
    module = result.module
    assert module.teacher is not None
    start = torch.load(weights, weights_only=True)["model"]
    kept = module.teacher.model.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(kept[name], value) for name, value in start.items())
    assert not all(torch.equal(module.model.state_dict()[name], value) for name, value in start.items())

    teachers = {id(parameter) for parameter in module.teacher.model.parameters()}  # type: ignore[attr-defined]
    optimizer = build_optimizer(module.model, config.optim)
    learning = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert not teachers & (learning | {id(parameter) for parameter in module.parameters()})
    checkpoint = torch.load(result.run.last_checkpoint, weights_only=True)
    assert set(checkpoint["state_dict"]) == set(module.state_dict())
    assert not [name for name in checkpoint["state_dict"] if "teacher" in name]
