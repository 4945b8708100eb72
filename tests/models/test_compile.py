"""``model.compile``: the same numbers, the same names."""

from __future__ import annotations

import logging
import shutil

import pytest
import torch
from torch._inductor import cpp_builder, exc

from coopmap.models import MapAnything
from coopmap.models.compilation import compile_blocks
from coopmap.models.layers import Block

from .support import load_config, make_observation
from .test_mapanything import assert_equal, objective

NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler for CPUs needs g++")


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    yield
    torch._dynamo.reset()


def pair(checkpointing: bool, backend: str) -> tuple[MapAnything, MapAnything]:
    """A model and its compiled twin."""
    parts = dict.fromkeys(("encoder", "info_sharing", "heads"), checkpointing)
    config = load_config("mapanything_tiny", {"checkpointing": parts})
    eager, compiled = MapAnything(config), MapAnything(config)
    compile_blocks(compiled, backend)
    compiled.load_state_dict(eager.state_dict())  # names are the same, before the first call
    return eager, compiled


def assert_same_training_step(eager: MapAnything, compiled: MapAnything, views: int) -> None:
    observation = make_observation(2, views)
    predictions = []
    for model in (eager, compiled):
        model.zero_grad()
        predictions.append(model(observation))
        objective(predictions[-1]).backward()
    assert_equal(*predictions)
    gradients = dict(compiled.named_parameters())
    for name, parameter in eager.named_parameters():
        largest = parameter.grad.abs().max().item()
        torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=0, atol=1e-4 * largest + 1e-6, msg=name)


def check(checkpointing: bool, backend: str) -> None:
    eager, compiled = pair(checkpointing, backend)
    for views in (2, 3, 4):
        assert_same_training_step(eager, compiled, views)
    assert list(compiled.state_dict()) == list(eager.state_dict())


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_training_steps_are_the_same_and_blocks_are_compiled_whole_and_once(checkpointing):
    """All of the way through PyTorch's compiler but for machine code."""
    counters = torch._dynamo.utils.counters
    counters.clear()
    check(checkpointing, "aot_eager")
    if not checkpointing:
        assert counters["stats"]["unique_graphs"] == 1  # for all sizes and blocks: those of the tiny model are alike
        assert not counters["graph_break"]


@pytest.mark.slow
@NEEDS_COMPILER
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_steps_are_the_same_in_machine_code(checkpointing):
    check(checkpointing, "inductor")


def test_autocast_reaches_compiled_blocks():
    eager, compiled = pair(False, "aot_eager")
    dtypes = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for model in (eager, compiled):
            hook = model.encoder.model.blocks[0].mlp.fc1.register_forward_hook(
                lambda *call: dtypes.append(call[2].dtype)
            )
            prediction = model(make_observation(1, 2))
            hook.remove()
            assert prediction.depth.isfinite().all()
    assert dtypes == [torch.bfloat16] * 2


def test_only_blocks_are_compiled():
    _, compiled = pair(False, "aot_eager")
    for module in compiled.modules():
        assert (module._compiled_call_impl is not None) == isinstance(module, Block)


def assert_runs_uncompiled(model: MapAnything, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    """With one line about it, and as if nothing had been asked for."""
    observation = make_observation(1, 2)
    expected = model(observation)
    caplog.set_level(logging.WARNING, "coopmap")
    compile_blocks(model)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"model.compile=true: {reason}")
    assert line.endswith("; blocks run uncompiled (install g++, or set CXX to a compiler)")
    assert all(module._compiled_call_impl is None for module in model.modules())
    assert torch.equal(model(observation).depth, expected.depth)


def test_without_a_compiler_blocks_run_as_they_are(tiny, monkeypatch, caplog):
    def none() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    assert_runs_uncompiled(tiny, "found no C++ compiler", caplog)


def test_with_a_compiler_that_fails_blocks_run_as_they_are(tiny, monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "false")
    assert_runs_uncompiled(tiny, "compiling fails (", caplog)
