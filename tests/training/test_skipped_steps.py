"""Steps that cannot be used: skipped, written down, computed again; and steps that do not fit, in chunks."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coopmap import load_config
from coopmap.cli.main import main
from coopmap.config.checks import ConfigError
from coopmap.config.train import OptimConfig
from coopmap.data import OPV2VDataModule
from coopmap.runs.metrics_file import read_metrics
from coopmap.train import train
from coopmap.training.assembly import build_module
from coopmap.training.callbacks.skipped_steps import KIND, SkippedSteps
from coopmap.training.chunks import chunked_loss
from coopmap.training.module import NonFiniteError, PoseLearner
from coopmap.training.replay import replay
from coopmap.training.skipping import KNOWN_AFTER, Skipping
from coopmap.types import Batch

from .one_step import data_and_batch

Overrides = Callable[..., list[str]]


def test_a_norm_far_above_the_usual_one_is_skipped() -> None:
    skipping = Skipping(OptimConfig(spike=10.0))
    assert not any(skipping.judge(torch.tensor(norm)) for norm in [1.0, 100.0, *[1.0] * KNOWN_AFTER])
    usual = float(skipping.usual)
    assert skipping.judge(torch.tensor(11 * usual))
    assert float(skipping.usual) == usual
    assert skipping.judge(torch.tensor(float("nan")))
    assert not skipping.judge(torch.tensor(9 * usual))
    assert int(skipping.count) == 2


def test_the_usual_norm_is_a_mean_from_the_first_step_on() -> None:
    skipping = Skipping(OptimConfig())
    for norm in (4.0, math.inf, 2.0):
        skipping.judge(torch.tensor(norm))
    assert float(skipping.usual) == 3.0


def test_without_a_factor_only_what_is_not_finite_is_skipped() -> None:
    skipping = Skipping(OptimConfig(spike=None))
    assert not any(skipping.judge(torch.tensor(10.0**power)) for power in range(KNOWN_AFTER + 5))
    assert skipping.judge(torch.tensor(float("inf")))


def test_steps_that_may_be_skipped_in_a_row_and_in_all() -> None:
    """Whatever the reason: a spike, two that are not finite; a good step ends a row."""
    skipping = Skipping(OptimConfig(spike=10.0, max_nonfinite_steps=3, max_skipped_steps=4))
    for norm in [1.0] * KNOWN_AFTER + [math.nan, 99.0]:
        skipping.judge(torch.tensor(norm))
    assert skipping.spent() is None
    skipping.judge(torch.tensor(math.inf))
    assert skipping.spent() == "for 3 steps"
    skipping.judge(torch.tensor(1.0))
    assert skipping.spent() is None
    skipping.judge(torch.tensor(math.nan))
    assert skipping.spent() == "for 4 steps in all (optim.max_skipped_steps)"


def poison(monkeypatch: pytest.MonkeyPatch, number: int, change: Callable[[Batch], None]) -> None:
    """Change one training batch, on the device."""
    transfer, seen = OPV2VDataModule.on_after_batch_transfer, []

    def changed(self: OPV2VDataModule, batch: Any, dataloader_idx: int) -> Any:
        batch = transfer(self, batch, dataloader_idx)
        if self.trainer.training:
            seen.append(batch)
            if len(seen) == number:
                change(batch)
        return batch

    monkeypatch.setattr(OPV2VDataModule, "on_after_batch_transfer", changed)


def black_hole(batch: Batch) -> None:
    batch.observation.images[0, 0] = torch.nan


def infinite_truth(batch: Batch) -> None:
    batch.target.depth[0, 1] = torch.inf


@pytest.mark.parametrize(
    ("change", "module", "term"), [(black_hole, "patch_embed", "pts3d_avg"), (infinite_truth, "none", "depth")]
)
def test_a_skipped_step_can_be_replayed(
    overrides: Overrides,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Batch], None],
    module: str,
    term: str,
) -> None:
    poison(monkeypatch, 2, change)
    chosen = overrides("trainer.max_epochs=1", "callbacks.validate_at_start=false")
    result = train(load_config(chosen), chosen)
    assert result.trainer.global_step == 3
    assert int(result.module.skipping.count) == 1
    (file,) = (result.run.path / "skipped").glob("*.pt")
    assert file.name == "step_2_rank_0.pt"
    ((found, _),) = replay(file)
    assert found.loss != found.loss or found.loss == float("inf")
    assert found.gradients
    assert any(name.startswith(term) for name in found.terms)
    assert (found.module or "none").find(module) >= 0
    capsys.readouterr()
    main(["replay", str(file)])
    shown = capsys.readouterr().out
    assert f"first module that is not finite: {found.module or 'none'}" in shown


def test_training_goes_on_where_a_skipped_step_has_no_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A real limit, which C++ meets as well, and reports as no error of the system."""
    callback, optim = SkippedSteps(tmp_path / "skipped"), OptimConfig()
    model, skipping = nn.Linear(1000, 1000), Skipping(optim)
    trainer: Any = SimpleNamespace(fast_dev_run=False, is_global_zero=True, global_rank=0, precision="32-true")
    module: Any = SimpleNamespace(
        device_mesh=None, model=model, record={}, optim=optim, skipping=skipping, trainer=trainer
    )
    callback._unread = torch.tensor(True), None, 2, []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        callback.on_before_optimizer_step(trainer, module, optimizer=None)  # type: ignore[arg-type]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "step 2 was skipped, and its batch could not be written: [Errno 27] File too large" in caplog.text
    assert not list((tmp_path / "skipped").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_replayed_step_has_the_same_loss(
    has_bf16: bool, overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finite step that counts as a spike, with the weights and random numbers that it had, in its precision."""
    monkeypatch.setattr("coopmap.training.skipping.KNOWN_AFTER", 1)
    monkeypatch.setattr("coopmap.training.assembly.computes_bf16", lambda kind: has_bf16)
    losses: list[float] = []
    step = PoseLearner.training_step

    def training_step(self: PoseLearner, batch: Batch, batch_idx: int) -> Tensor:
        total = step(self, batch, batch_idx)
        losses.append(float(total))
        return total

    monkeypatch.setattr(PoseLearner, "training_step", training_step)
    monkeypatch.setattr(Skipping, "judge", spike_at_the_second(Skipping.judge))
    settings = ("trainer.precision=bf16-mixed", "trainer.max_epochs=1", "callbacks.validate_at_start=false")
    chosen = overrides(*settings, "task=augmented")
    result = train(load_config(chosen), chosen)
    (file,) = (result.run.path / "skipped").glob("*.pt")
    ((found, _),) = replay(file)
    assert found.loss == pytest.approx(losses[1], rel=1e-6)
    assert found.module is None
    assert found.terms == found.gradients == []


def spike_at_the_second(judge: Callable[..., Tensor]) -> Callable[..., Tensor]:
    calls = []

    def judged(self: Skipping, norm: Tensor) -> Tensor:
        calls.append(norm)
        return judge(self, norm * (1e9 if len(calls) == 2 else 1))

    return judged


def test_too_many_skipped_steps_end_the_run(overrides: Overrides, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, 2, black_hole)
    chosen = overrides("optim.max_skipped_steps=1", "callbacks.validate_at_start=false")
    with pytest.raises(NonFiniteError, match=r"1 steps in all \(optim\.max_skipped_steps\), up to step 2"):
        train(load_config(chosen), chosen)


def test_what_is_no_skipped_step_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match="holds no skipped step"):
        next(iter(replay(tmp_path / "other.pt")))


def test_a_rank_whose_weights_are_elsewhere_is_told_where(tmp_path: Path) -> None:
    torch.save({"kind": KIND, "step": 7, "weights": None}, tmp_path / "step_7_rank_3.pt")
    with pytest.raises(ConfigError, match=r"step_7_rank_3\.pt: .* in rank 0's file, expected .*: step_7_rank_0\.pt"):
        next(iter(replay(tmp_path / "step_7_rank_3.pt")))


@pytest.fixture
def parts(overrides: Overrides) -> tuple[PoseLearner, Batch, list[str]]:
    # Without normals, which make much of rounding where neighboring points nearly coincide.
    chosen = overrides("task=augmented", "data.max_views_per_gpu=6", "loss=overall", "loss.weights.normal=0")
    config = load_config(chosen)
    data, batch = data_and_batch(config)
    module = build_module(config)
    return module, data.on_after_batch_transfer(batch, 0), chosen


def gradients_of(module: PoseLearner, total: Tensor) -> dict[str, Tensor]:
    module.zero_grad(set_to_none=True)
    (2 * total).backward()
    return {name: weight.grad.clone() for name, weight in module.named_parameters() if weight.grad is not None}


def test_chunks_have_the_loss_and_the_gradient_of_the_whole_batch(parts: tuple[PoseLearner, Batch, list[str]]) -> None:
    module, batch, _ = parts
    assert len(batch.metas) > 1
    whole, terms = module.loss_of(batch, 5)
    expected = gradients_of(module, whole)
    chunked, chunk_terms = chunked_loss(module, batch, 5)
    found = gradients_of(module, chunked)
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=0)
    torch.testing.assert_close(chunk_terms, terms, rtol=1e-4, atol=1e-6)
    assert found.keys() == expected.keys()
    norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() < 1e-5 * norm, name


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_step_without_memory_is_done_in_chunks(
    overrides: Overrides, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As in a run with memory: equal losses, and it says so once."""
    common = ("trainer.max_epochs=1", "callbacks.validate_at_start=false", "data.max_views_per_gpu=6", "seed=3")

    def losses(name: str) -> list[float]:
        chosen = overrides(*common, f"run_dir={name}", "logger=csv")
        result = train(load_config(chosen), chosen)
        rows = read_metrics(result.run.path / "metrics.csv")
        return [row["train/loss"] for row in rows if math.isfinite(row.get("train/loss", math.nan))]

    folder = overrides()[-1].partition("=")[2]
    expected = losses(f"{folder}/with")
    with monkeypatch.context() as patch:
        run_out_of_memory(patch, where)
        found = losses(f"{folder}/without")
    assert found == pytest.approx(expected, rel=1e-4)
    assert Path(f"{folder}/without/train.log").read_text().count("out of memory with 2 samples of 3 views") == 1


def test_a_step_that_runs_out_of_memory_backward_is_done_again_in_its_precision(
    overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coopmap.training.assembly.computes_bf16", lambda kind: True)
    common = ("trainer.precision=bf16-mixed", "trainer.max_epochs=1", "callbacks.validate_at_start=false")
    chosen = overrides(*common, "data.max_views_per_gpu=6", "seed=3", "logger=csv")
    seen: list[tuple[torch.dtype, int]] = []

    def watched(self: nn.Linear, inputs: Tensor) -> Tensor:
        outputs = F.linear(inputs, self.weight, self.bias)
        if type(outputs) is Tensor:
            seen.append((outputs.dtype, calls[0]))
        return outputs

    calls = [0]
    backward = Tensor.backward

    def counted(self: Tensor, *args: Any, **kwargs: Any) -> None:
        calls[0] += type(self) is Tensor
        backward(self, *args, **kwargs)

    monkeypatch.setattr(Tensor, "backward", counted)
    run_out_of_memory(monkeypatch, "backward")
    monkeypatch.setattr(nn.Linear, "forward", watched)
    train(load_config(chosen), chosen)
    of_the_step = {dtype for dtype, number in seen if number == 0}
    of_the_second = {dtype for dtype, number in seen if number == 1}
    assert torch.bfloat16 in of_the_second
    assert of_the_second == of_the_step


def run_out_of_memory(patch: pytest.MonkeyPatch, where: str) -> None:
    """Batches of more than one sample are too large."""
    if where == "forward":
        forward = PoseLearner.forward

        def small_forward(self: PoseLearner, observation: Any) -> Any:
            if self.training and len(observation.images) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
            return forward(self, observation)

        patch.setattr(PoseLearner, "forward", small_forward)
        return
    backward, calls = Tensor.backward, []

    def first_fails(self: Tensor, *args: Any, **kwargs: Any) -> None:
        if type(self) is Tensor:  # not where FLOPs are counted on tensors without content
            calls.append(self)
        if len(calls) == 1 and type(self) is Tensor:
            backward(self, *args, **kwargs)  # what was added to gradients must not stay
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        backward(self, *args, **kwargs)

    patch.setattr(Tensor, "backward", first_fails)


def test_a_single_sample_without_memory_says_what_to_do(
    parts: tuple[PoseLearner, Batch, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, batch, _ = parts
    one = Batch(batch.observation.map(lambda t: t[:1]), batch.target.map(lambda t: t[:1]), batch.metas[:1])
    monkeypatch.setattr(PoseLearner, "forward", raise_out_of_memory)
    with pytest.raises(torch.OutOfMemoryError, match=r"cannot be split: switch on model\.checkpointing"):
        module.chunks.run(module, one, 0)


def test_ranks_that_share_out_parameters_do_not_retry(
    parts: tuple[PoseLearner, Batch, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others would wait for parameters that they are asked for once, and this one twice."""
    module, batch, _ = parts
    monkeypatch.setattr(PoseLearner, "forward", raise_out_of_memory)
    monkeypatch.setattr(module, "_device_mesh", object())
    with pytest.raises(torch.OutOfMemoryError, match=r"2 samples of 3 views, which are not split with strategy=fsdp"):
        module.chunks.run(module, batch, 0)


def raise_out_of_memory(*_: Any) -> None:
    raise torch.OutOfMemoryError("no memory")
