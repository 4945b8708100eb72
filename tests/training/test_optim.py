import math

import pytest
import torch
from torch import nn

from coopmap import build_model, load_config
from coopmap.config import ConfigError
from coopmap.config.train import OptimConfig
from coopmap.training.optim import build_optimizer, has_weight_decay, parameter_groups, warmup_cosine


def test_schedule_by_hand() -> None:
    factor = warmup_cosine(13, OptimConfig(warmup_fraction=4 / 13, final_lr_fraction=0.2))
    assert [factor(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert factor(4) == 1.0
    assert factor(8) == pytest.approx(0.6)  # halfway down the cosine
    assert factor(6) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert factor(12) == pytest.approx(0.2)
    assert factor(100) == pytest.approx(0.2)


def test_schedule_without_warmup_starts_at_the_peak() -> None:
    assert warmup_cosine(10, OptimConfig(warmup_fraction=0))(0) == 1.0


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build_model(load_config(["machine=laptop"]))


def test_every_parameter_is_in_exactly_one_group(model: nn.Module) -> None:
    grouped = [id(parameter) for group in parameter_groups(model, OptimConfig()) for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


def test_only_weight_matrices_decay(model: nn.Module) -> None:
    norms = {
        f"{name}.{leaf}"
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        for leaf, _ in module.named_parameters(recurse=False)
    }
    assert norms
    decayed = {name for name, parameter in model.named_parameters() if has_weight_decay(name, parameter)}
    assert not decayed & norms
    assert not [name for name in decayed if name.endswith(("bias", "gamma", "scale_token", "cls_token", "pos_embed"))]
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    shared = linear & {name for name, _ in model.named_parameters()}
    assert shared <= decayed


def test_groups_carry_decay_and_rates() -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(2, 3), "head": nn.Linear(3, 1)})
    optimizer = build_optimizer(model, OptimConfig(lr=1e-3, lr_of={"encoder": 1e-5}, weight_decay=0.1))
    groups = {(group["name"], group["weight_decay"]): group["lr"] for group in optimizer.param_groups}
    assert groups == {("encoder", 0.1): 1e-5, ("encoder", 0.0): 1e-5, ("head", 0.1): 1e-3, ("head", 0.0): 1e-3}
    assert optimizer.defaults["betas"] == (0.9, 0.95)


def test_rate_zero_freezes(model: nn.Module) -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(2, 3), "head": nn.Linear(3, 1)})
    groups = parameter_groups(model, OptimConfig(lr_of={"encoder": 0}))
    assert {group["name"] for group in groups} == {"head"}
    assert not any(parameter.requires_grad for parameter in model["encoder"].parameters())


def test_rate_applies_under_either_name_of_a_shared_module(model: nn.Module) -> None:
    rates = {group["name"]: group["lr"] for group in parameter_groups(model, OptimConfig(lr_of={"dense_head": 7e-4}))}
    assert rates["dense_head"] == 7e-4
    assert not {"dpt_feature_head", "dpt_regressor_head"} & set(rates)


def test_unknown_part_is_named(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr_of=encodr.*did you mean encoder\?"):
        parameter_groups(model, OptimConfig(lr_of={"encodr": 1e-5}))


def test_step_with_nonfinite_gradient_changes_nothing() -> None:
    layer = nn.Linear(2, 1)
    optimizer = build_optimizer(nn.ModuleDict({"layer": layer}), OptimConfig(lr=0.1))
    before = layer.weight.detach().clone()
    layer(torch.tensor([[1.0, torch.inf]])).sum().backward()
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert torch.equal(layer.weight, before)
    optimizer.zero_grad()
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.found_inf = torch.tensor(0.0)
    optimizer.step()
    assert not torch.equal(layer.weight, before)
    assert layer.weight.isfinite().all()
