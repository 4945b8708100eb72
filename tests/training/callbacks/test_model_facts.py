"""What a model costs, beside counts that were found in another way."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from coopmap import build_model, load_config
from coopmap.models import MapAnything
from coopmap.models.counting import count_parameters, count_sample, outline
from coopmap.training.callbacks import ModelFacts
from coopmap.training.callbacks.model_facts import (
    largest_observation,
    peak_memory,
    peak_rss_bytes,
)
from coopmap.types import Observation

CPU = torch.device("cpu")


@pytest.fixture
def model() -> MapAnything:
    sizes = ["model.encoder.dim=24", "model.encoder.depth=2", "model.encoder.num_heads=2"]
    sizes += ["model.info_sharing.dim=24", "model.info_sharing.depth=3", "model.info_sharing.num_heads=2"]
    sizes += ["model.heads.layer_dims=[8,8,8,8]", "model.heads.feature_dim=8"]
    model = build_model(load_config(["machine=laptop", "optim=default", *sizes]))
    assert isinstance(model, MapAnything)
    return model.train()


@pytest.fixture
def observation() -> Observation:
    """Three panoramas of 2 x 8 patches."""
    return Observation(images=torch.randn(1, 3, 3, 28, 112), rays=torch.zeros(1, 3, 28, 112, 3))


def test_tokens_are_those_of_the_patches(model: MapAnything, observation: Observation) -> None:
    facts = count_sample(model, observation)
    registers = model.cfg.encoder.num_registers
    assert facts["views"] == 3
    assert facts["multi_view_tokens"] == 3 * 16
    assert facts["encoder_tokens"] == 3 * (16 + 1 + registers)


def test_flops_are_those_of_a_real_pass(model: MapAnything, observation: Observation) -> None:
    facts = count_sample(model, observation)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        prediction = model(observation)
        forward = counter.get_total_flops()
        tensors = [value for value in vars(prediction).values() if value is not None and value.requires_grad]
        torch.stack([tensor.sum() for tensor in tensors]).sum().backward()
    assert facts["forward_flops"] == forward
    # Fused attention computes its scores again in the backward pass: one more product per attention than the plain one.
    assert facts["training_flops"] == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert facts["training_flops"] > counter.get_total_flops()


def test_what_only_matches_teach_is_counted(tiny_model: tuple[str, ...], observation: Observation) -> None:
    keys = ["machine=laptop", *tiny_model, "model.matching.enabled=true"]
    whole, heads = (build_model(load_config([*keys, f"optim/train={part}"])).train() for part in ("full", "matching"))
    heads.requires_grad_(False)
    frozen = count_sample(heads, observation)
    assert frozen["training_flops"] == frozen["forward_flops"]
    heads.matching.requires_grad_(True)
    forward = count_sample(heads, observation)["forward_flops"]
    assert 1 < count_sample(heads, observation)["training_flops"] / forward < 1.2
    assert 2.5 < count_sample(whole, observation)["training_flops"] / forward < 3.5


def test_an_outline_is_counted_as_the_model_is(model: MapAnything, observation: Observation) -> None:
    model.info_sharing.requires_grad_(False)
    shapes = outline(model)
    assert all(parameter.is_meta for parameter in shapes.parameters())
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert count_parameters(shapes) == count_parameters(model)
    assert count_sample(shapes, observation) == count_sample(model, observation)


def test_counting_leaves_the_model_alone(model: MapAnything, observation: Observation) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    count_sample(model, observation)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and type(parameter) is torch.nn.Parameter for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_frozen_parts_cost_less_to_train(model: MapAnything, observation: Observation) -> None:
    whole, all_of_it = count_sample(model, observation), count_parameters(model)
    model.encoder.requires_grad_(False)
    frozen = count_sample(model, observation)
    assert frozen["forward_flops"] == whole["forward_flops"]
    assert frozen["training_flops"] < whole["training_flops"]
    encoder = sum(parameter.numel() for parameter in model.encoder.parameters())
    expected = {"parameters": all_of_it["parameters"], "trained_parameters": all_of_it["parameters"] - encoder}
    assert count_parameters(model) == expected


def test_the_sample_with_the_most_agents_that_can_be_read(observation: Observation) -> None:
    class Dataset:
        num_agents = torch.tensor([2, 3, 3]).numpy()

        def __getitem__(self, place: int) -> SimpleNamespace:
            if place == 1:
                return SimpleNamespace(skipped=("unreadable",))
            return SimpleNamespace(observation=observation.map(lambda tensor: tensor[0, :place]))

    found = largest_observation(SimpleNamespace(dataset=lambda split: Dataset()))
    assert found is not None
    assert found.images.shape == (1, 2, 3, 28, 112)


def test_memory_of_earlier_work_says_nothing_about_this_run() -> None:
    assert peak_memory(CPU, rss_before=0)["process_peak_rss_bytes"] == peak_rss_bytes() > 2**20
    assert peak_memory(CPU, rss_before=2**60) == {}


def test_clock_stands_until_training_goes_on(tmp_path: Path) -> None:
    callback = ModelFacts(tmp_path / "model.json")
    assert callback.seconds == 0.0
    callback.load_state_dict({"seconds": 100.0})
    assert callback.seconds == callback.state_dict()["seconds"] == 100.0
