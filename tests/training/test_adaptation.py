"""What each preset trains, and that everything it trains learns."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from coopmap import build_model, load_config
from coopmap.config import ConfigError
from coopmap.config.train import AdaptationConfig
from coopmap.data.normalization import normalize
from coopmap.evaluate import evaluate
from coopmap.inference.loading import load_run
from coopmap.models.lora import add_lora, merged_state
from coopmap.train import train
from coopmap.training.adaptation import adapt
from coopmap.training.assembly import build_datamodule, build_module
from coopmap.types import Observation, Prediction

from .one_step import MATCHING

CHECKPOINTING = "model.checkpointing={encoder: true, info_sharing: true, heads: true}"


def observation() -> Observation:
    generator = torch.Generator().manual_seed(0)
    return Observation(torch.randn(1, 2, 3, 28, 56, generator=generator), torch.zeros(1, 2, 28, 56, 3))


def adapted(preset: str, *overrides: str) -> nn.Module:
    config = load_config(["machine=laptop", f"optim/train={preset}", *overrides])
    torch.manual_seed(0)
    model = build_model(config)
    adapt(model, config.optim.train)
    return model


def objective(prediction: Prediction) -> torch.Tensor:
    return sum(value.square().mean() for value in vars(prediction).values() if value is not None)


def trained_parts(model: nn.Module) -> set[str]:
    return {name.partition(".")[0] for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("overrides", [(), (CHECKPOINTING,)], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("preset", ["full", "heads", "encoder_frozen", "lora", "biases"])
def test_every_trained_parameter_receives_a_gradient_and_no_other_does(preset: str, overrides: tuple[str, ...]) -> None:
    model = adapted(preset, *overrides)
    objective(model(observation())).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    silent = [
        name
        for name, parameter in model.named_parameters()
        # the product of a zero and a random matrix has a gradient with respect to the zero one alone
        if parameter.requires_grad and not name.endswith(".down") and not parameter.grad.any()
    ]
    assert silent == []


def test_parts_that_presets_train() -> None:
    heads = {"dpt_feature_head", "dpt_regressor_head", "pose_head", "scale_head"}
    everything = trained_parts(adapted("full"))
    assert heads < everything
    assert trained_parts(adapted("heads")) == heads
    assert trained_parts(adapted("encoder_frozen")) == everything - {"encoder"}
    low_rank = adapted("lora")
    updates = {name.rpartition(".")[2] for name, value in low_rank.encoder.named_parameters() if value.requires_grad}
    assert updates == {"up", "down"}
    assert trained_parts(low_rank) == everything


@torch.no_grad()
def test_low_rank_updates_change_nothing_at_first_and_merge_exactly() -> None:
    plain, model = adapted("full").eval(), adapted("lora").eval()
    before = model(observation())
    assert torch.equal(before.depth, plain(observation()).depth)
    for name, parameter in model.named_parameters():
        if name.endswith(".up"):
            parameter.normal_(std=0.1)
    changed = model(observation())
    assert (changed.depth - before.depth).abs().max() > 1e-3
    merged = merged_state(model.state_dict())
    assert merged.keys() == plain.state_dict().keys()
    plain.load_state_dict(merged)
    torch.testing.assert_close(plain(observation()).depth, changed.depth)


def test_small_updates_count_in_half_precision_as_they_will_once_merged() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 256, bias=False))
    layer, inputs = model[0], torch.randn(64, 256)
    before = layer.weight.detach().clone()
    add_lora([layer], rank=8, alpha=8)
    with torch.no_grad():
        layer.parametrizations.weight[0].up.normal_(std=2e-5)  # a thousandth of the weight, less than bfloat16 resolves
    weight = merged_state(model.state_dict())["0.weight"]
    with torch.autocast("cpu", torch.bfloat16):
        adapted, merged, plain = layer(inputs), *(nn.functional.linear(inputs, each) for each in (weight, before))
    assert torch.equal(adapted, merged)
    assert not torch.equal(adapted, plain)


def test_a_run_with_low_rank_updates_is_evaluated_and_loaded_like_any_other(
    overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    chosen = overrides("optim/train=lora", "optim.train.lora_rank=2", "trainer.max_epochs=1", "optim.lr=0.1")
    result = train(load_config(chosen), chosen)
    checkpoint = result.run.path / "checkpoints" / "last.ckpt"
    measured = evaluate(checkpoint, output=tmp_path / "evaluation").figures
    model, _ = load_run(checkpoint)
    batch = normalize(next(iter(result.datamodule.val_dataloader())))
    with torch.no_grad():
        expected = result.module.eval()(result.module.with_inputs(batch.observation, 0))
        assert torch.equal(model.encoder.model.blocks[0].mlp.fc1.weight, adapted_weight(result.module.model))
        torch.testing.assert_close(model.eval()(batch.observation).depth, expected.depth, rtol=1e-4, atol=1e-4)
    last = result.validations[-1]
    assert measured["val/pose_trans_avg"] == pytest.approx(last["val/pose_trans_avg"], rel=1e-4)


def adapted_weight(model: nn.Module) -> torch.Tensor:
    return model.encoder.model.blocks[0].mlp.fc1.weight


def test_low_rank_by_hand() -> None:
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
    assert add_lora([layer], rank=1, alpha=3.0) == 1
    update = layer.parametrizations.weight[0]
    with torch.no_grad():
        update.up.copy_(torch.tensor([[1.0], [2.0]]))
        update.down.copy_(torch.tensor([[1.0, -1.0]]))
    torch.testing.assert_close(layer.weight, torch.tensor([[4.0, -3.0], [6.0, -5.0]]))


@pytest.mark.parametrize("more", [(), (CHECKPOINTING,)], ids=["plain", "checkpointing"])
def test_fusion_only_trains_the_block_and_the_heads(overrides: Callable[..., list[str]], more: tuple[str, ...]) -> None:
    chosen = "optim/train=fusion_only", "experiment=fusion_cross_attention", "model.fusion.radius=1"
    config = load_config(overrides(*chosen, *more))
    module, data = build_module(config), build_datamodule(config)
    heads = {"dpt_feature_head", "dpt_regressor_head", "pose_head", "scale_head"}
    assert trained_parts(module.model) == heads | {"fusion"}
    nn.init.normal_(module.model.fusion.output.weight, std=0.02)  # behind zeros nothing learns in the first step
    objective(module.model(normalize(next(iter(data.val_dataloader()))).observation)).backward()
    for name, parameter in module.model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == parameter.requires_grad, name


def test_fusion_only_needs_a_fusion_block() -> None:
    with pytest.raises(ConfigError, match=r"optim\.train\.only=fusion"):
        adapted("fusion_only")


def test_biases_trains_every_part_but_no_matrix() -> None:
    model = adapted("biases")
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    gains = {f"{name}.weight" for name, module in model.named_modules() if "norm" in name.rpartition(".")[2]} & dict(
        model.named_parameters()
    ).keys()
    assert len(gains) == 2 * 4 + 3  # two in each block; after the encoder, the sum of inputs and the transformer
    assert trained.keys() == gains | {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    assert all(value.ndim == 1 for value in trained.values())
    assert sum(value.numel() for value in trained.values()) < 0.02 * sum(value.numel() for value in model.parameters())


def test_biases_of_some_parts() -> None:
    model = adapted("biases", "optim.train.only=[pose_head]")
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if name.startswith("pose_head.")} - {
        name for name, value in model.named_parameters() if value.ndim > 1
    }


def test_matching_trains_the_matching_heads() -> None:
    model = adapted("matching", *MATCHING, "model.matching.dense=true")
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trained == {f"matching.{name}" for name, _ in model.matching.named_parameters()}
    assert {name.split(".")[1] for name in trained} >= {"descriptor", "query", "keys", "feature_query", "confidence"}
    with pytest.raises(
        ConfigError, match=r"optim\.train\.only=matching\*: this model has no such part, only encoder, "
    ):
        adapted("matching")


def test_unknown_part_is_named() -> None:
    with pytest.raises(ConfigError, match=r"optim\.train\.frozen=encodr"):
        adapt(adapted("full"), AdaptationConfig(frozen=["encodr"]))
