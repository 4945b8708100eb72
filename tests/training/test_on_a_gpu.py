"""Training on a CUDA GPU: no step waits for it, every strategy runs on NCCL, an interrupted run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor

from coopmap import load_config
from coopmap.runs.metrics_file import read_metrics
from coopmap.train import train
from coopmap.training.assembly import build_module
from coopmap.training.module import PoseLearner
from coopmap.training.optim import build_optimizer
from coopmap.types import Batch

from .one_step import data_and_batch, one_step
from .test_resume import Killed, StepLog

Overrides = Callable[..., list[str]]
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
MATCHING = ("model.matching.enabled=true", "model.pose_from=alignment", "loss=matching", "data.max_views_per_gpu=6")


@pytest.fixture
def gpu_run(overrides: Overrides) -> Overrides:
    """A tiny run on one GPU."""
    return lambda *more: overrides(
        "machine=gpu", "trainer.devices=1", "trainer.precision=32-true", "callbacks.validate_at_start=false", *more
    )


@pytest.fixture(params=["pose", "matching"])
def parts(request: pytest.FixtureRequest, gpu_run: Overrides) -> tuple[PoseLearner, Batch]:
    """What a step needs, on the CPU."""
    config = load_config(gpu_run("task=augmented", *(MATCHING if request.param == "matching" else ())))
    data, batch = data_and_batch(config)
    return build_module(config), data.on_after_batch_transfer(batch, 0)


def test_a_step_waits_for_nothing(parts: tuple[PoseLearner, Batch]) -> None:
    """Forward, objective, backward, clipping and AdamW, once libraries have set themselves up."""
    module, batch = parts[0].cuda(), parts[1].to("cuda")
    optimizer = build_optimizer(module.model, module.optim)  # type: ignore[arg-type]
    for mode in ("default", "default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            total = one_step(module, optimizer, batch)
            optimizer.zero_grad()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert total.isfinite()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_loss_of_the_cpu(parts: tuple[PoseLearner, Batch], precision: torch.dtype) -> None:
    """Images and geometry alone: random inputs are drawn on the device."""
    module, batch = parts
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        on_cpu, _ = module.criterion(module(batch.observation), batch.target)
        module, batch = module.cuda(), batch.to("cuda")
        with torch.autocast("cuda", precision, enabled=precision is torch.bfloat16):
            prediction = module(batch.observation)
        on_gpu, _ = module.criterion(prediction, batch.target)
    finally:
        torch.backends.cudnn.allow_tf32 = before
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-3 if precision is torch.float32 else 0.05, atol=0)


def losses(metrics: Path) -> list[float]:
    """``train/loss`` of every step."""
    return [row["train/loss"] for row in read_metrics(metrics) if row.get("train/loss") is not None]


@pytest.mark.parametrize("strategy", ["ddp", "ddp_zero1", "fsdp"])
def test_a_strategy_on_one_gpu_trains_as_a_single_process(
    strategy: str, gpu_run: Overrides, tmp_path: Path, without_groups: None
) -> None:
    runs = [
        train(load_config(chosen), chosen)
        for name in ("single", strategy)
        for chosen in [gpu_run("trainer.max_epochs=1", f"strategy={name}", f"run_dir={tmp_path / name}")]
    ]
    expected, found = (losses(result.run.path / "metrics.csv") for result in runs)
    assert len(found) == 3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


@pytest.fixture
def without_groups() -> Iterator[None]:
    """Processes' groups end with the test."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("more", [(), ("trainer.precision=bf16-mixed", *MATCHING)], ids=["float32", "matching, bf16"])
def test_a_resumed_run_ends_where_the_whole_one_does(more: tuple[str, ...], gpu_run: Overrides, tmp_path: Path) -> None:
    """Sums on a GPU may be in another order, so not to the bit."""

    def weights(name: str, *callbacks: L.Callback) -> Tensor:
        chosen = gpu_run(*more, "resume=auto", "optim.lr=0.001", f"run_dir={tmp_path / name}")
        module = train(load_config(chosen), chosen, callbacks).module
        return torch.cat([value.flatten() for value in module.parameters()]).double().cpu()

    whole = weights("whole")
    with pytest.raises(Killed):
        weights("parts", StepLog(("batch_start", 4)))
    assert (weights("parts") - whole).norm() < 1e-3 * whole.norm()


def test_tokens_and_flops_are_counted(gpu_run: Overrides, tmp_path: Path) -> None:
    """Also where autocast for the GPU is on before the model is there."""
    chosen = gpu_run("trainer.max_epochs=1", "trainer.precision=bf16-mixed", f"run_dir={tmp_path / 'run'}")
    train(load_config(chosen), chosen)
    facts = json.loads((tmp_path / "run" / "model.json").read_text())
    assert facts["training_flops"] > facts["forward_flops"] > 0
    assert facts["cuda_peak_allocated_bytes"] > 0
