"""Bytes of parameters, gradients and optimizer state follow from shapes."""

import pytest
import torch

from coopmap import load_config
from coopmap.planning.state import hollow_model, state_bytes
from coopmap.training.shares import shares


def test_nothing_is_allocated_for_a_model_of_a_billion_parameters() -> None:
    config = load_config(["machine=local3090", "model=mapanything_v11"])
    model = hollow_model(config)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    alone = state_bytes(model, config.optim, "ddp", 10)
    assert alone.parameters == alone.gradients == 4 * sum(parameter.numel() for parameter in model.parameters())
    assert alone.optimizer == 2 * alone.gradients + 4 * len(list(model.parameters()))


@pytest.mark.parametrize("strategy", ["ddp_zero1", "fsdp"])
def test_shares_of_all_ranks_make_up_the_whole(strategy: str) -> None:
    config = load_config(["machine=local3090"])
    model = hollow_model(config)
    whole, ranks = state_bytes(model, config.optim, "single", 1), 10
    each = [state_bytes(model, config.optim, strategy, ranks, rank) for rank in range(ranks)]
    tensors = len(list(model.parameters()))
    steps = 4 * tensors * (ranks if strategy == "fsdp" else 1)
    assert sum(state.optimizer for state in each) == whole.optimizer - 4 * tensors + steps
    assert max(state.optimizer for state in each) < 1.1 * whole.optimizer / ranks
    if strategy == "fsdp":
        assert sum(state.parameters for state in each) == whole.parameters
        assert max(each, key=lambda state: state.parameters) == each[0]


def test_frozen_parts_have_neither_gradients_nor_averages() -> None:
    config = load_config(["machine=local3090", "optim/train=heads"])
    model = hollow_model(config)
    heads = sum(
        p.nbytes for name in ("dense_head", "pose_head", "scale_head") for p in getattr(model, name).parameters()
    )
    state = state_bytes(model, config.optim, "ddp", 2)
    assert state.gradients == heads
    assert state.parameters > 10 * heads


def test_shares_are_even_and_complete() -> None:
    sizes = torch.randint(1, 1000, (57,)).tolist()
    found = shares(sizes, 4)
    assert sorted(item for items in found for item in items) == list(range(57))
    totals = [sum(sizes[item] for item in items) for items in found]
    assert max(totals) - min(totals) <= max(sizes)
