"""A run that was tried out is the run that was not; one that cannot work ends with what to change."""

import csv
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from coopmap import load_config
from coopmap.config import ConfigError
from coopmap.config.synth import TownConfig
from coopmap.preflight import preflight
from coopmap.preflights import runner
from coopmap.preflights.batches import largest_training_batch
from coopmap.preflights.findings import Finding
from coopmap.preflights.trial import run_trial
from coopmap.runs.folder import RunFolder
from coopmap.train import train
from coopmap.training.module import PoseLearner
from coopmap.training.run import build_learner

from .conftest import FakeDriver

Overrides = Callable[..., list[str]]


@pytest.fixture
def overrides(tiny_model: tuple[str, ...], town: TownConfig, tmp_path: Path) -> Overrides:
    """A run of two steps that begins with a preflight."""
    chosen = (
        *tiny_model,
        "preflight.enabled=true",
        "logger=csv",
        "callbacks.progress=none",
        "callbacks.live_frames=0",
        "callbacks.validate_at_start=false",
        "data.steps_per_epoch=2",
        "data.num_workers=0",
        "data.max_views_per_gpu=4",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1",
        f"data.root={town.root}",
        f"data.depth_root={town.depth_root}",
        f"runs_root={tmp_path / 'runs'}",
    )
    return lambda *more: [*chosen, *more]


def figures(run: Path) -> list[dict[str, str]]:
    """Of every step and validation, but for times and memory."""
    with (run / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return [{k: v for k, v in row.items() if not k.startswith(("time", "memory", "wall"))} for row in rows]


@pytest.mark.slow
def test_a_run_after_preflight_is_to_the_bit_the_run_without(
    overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {}
    for enabled in ("true", "false"):
        chosen = overrides(f"preflight.enabled={enabled}", f"run_dir={tmp_path / enabled}", "task=augmented")
        runs[enabled] = train(load_config(chosen), chosen)
        shown = capsys.readouterr().out
        assert ("expected end of the epoch" in shown) == ("Preflight\n" in shown) == (enabled == "true")
    rows = [figures(tmp_path / enabled) for enabled in runs]
    assert len(rows[0]) > 2
    assert rows[0] == rows[1]
    assert {"train/loss", "train/grad_norm"} <= set(rows[0][0])
    files = [torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in runs]
    for name, tensor in files[0]["state_dict"].items():
        assert torch.equal(tensor.view(torch.uint8), files[1]["state_dict"][name].view(torch.uint8)), name
    states = [file["optimizer_states"][0]["state"] for file in files]
    assert all(torch.equal(states[0][i]["exp_avg_sq"], states[1][i]["exp_avg_sq"]) for i in states[1])


def test_a_trial_leaves_weights_random_numbers_and_modes_as_they_were(overrides: Overrides) -> None:
    config = load_config(overrides())
    module, datamodule = build_learner(config, RunFolder(Path("none")))
    module.model.encoder.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    random_numbers = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    trial = run_trial(config, module, datamodule)
    assert trial.shape == (2, 2)
    assert min(trial.batch_s, trial.val_s) > 0
    assert [part.training for part in module.modules()] == modes
    assert all(parameter.grad is None for parameter in module.parameters())
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert torch.equal(torch.get_rng_state(), random_numbers[0])
    assert (random.getstate(), str(np.random.get_state())) == random_numbers[1:]  # noqa: NPY002


def test_the_largest_batch_has_the_most_views_and_of_several_the_most_agents(overrides: Overrides) -> None:
    from coopmap import build_dataset

    for views, shape in ((4, (2, 2)), (5, (2, 2)), (3, (1, 3)), (6, (2, 3))):
        dataset = build_dataset(load_config(overrides("data.max_agents=3", f"data.max_views_per_gpu={views}")), "train")
        requests = largest_training_batch(dataset)
        assert (len(requests), requests[0].num_agents) == shape


def test_a_batch_that_does_not_fit_ends_the_run_and_the_advice_lets_it_pass(
    overrides: Overrides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = PoseLearner.training_step

    def training_step(self: PoseLearner, batch, batch_idx: int) -> torch.Tensor:
        if batch.observation.images.shape[0] * batch.observation.images.shape[1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(PoseLearner, "training_step", training_step)
    chosen = overrides("data.max_agents=4")
    with pytest.raises(ConfigError, match="out of memory in a step on the largest batch, 2 x 2 agents") as raised:
        train(load_config(chosen), chosen)
    assert not (tmp_path / "runs").exists()
    advice = "data.max_agents=3 data.max_views_per_gpu=3"
    assert advice in str(raised.value)
    preflight(load_config(overrides(*advice.split())))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no checkpoint at all"])
def test_a_checkpoint_that_cannot_be_read_ends_the_run(content: bytes, overrides: Overrides, tmp_path: Path) -> None:
    file = tmp_path / "broken.ckpt"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.weights=.*broken\.ckpt"):
        preflight(load_config(overrides(f"model.weights={file}")))
    with pytest.raises(ConfigError, match=r"broken\.ckpt"):
        preflight(load_config(overrides(f"resume={file}")), [f"resume={file}"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.ckpt"]


def test_preflight_alone_shows_the_table_and_writes_nothing(
    overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str], driver: FakeDriver
) -> None:
    preflight(load_config(overrides("trainer.max_epochs=10", "optim.lr=0.5", "optim.warmup_fraction=0.5")))
    shown = capsys.readouterr().out
    assert "2 an epoch, 20 in all; 1 x 1 micro-batches each" in shown
    # warm-up over ten of twenty steps: a tenth of the peak first, final_lr_fraction of it last
    assert "0.05 first, 0.5 at step 10, 0.005 last" in shown
    assert "2 of 2 usable" in shown
    assert "nothing wrong" in shown
    assert "2 x 2 agents" in shown
    assert max(map(len, shown.partition("Preflight\n")[2].partition("\n\n")[0].splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


def test_what_is_a_try_itself_says_so(overrides: Overrides, capsys: pytest.CaptureFixture[str]) -> None:
    preflight(load_config(overrides("trainer.fast_dev_run=1")))
    assert "are tries themselves: nothing else is tried out" in capsys.readouterr().out


def test_data_that_is_wrong_as_a_whole_ends_the_run(overrides: Overrides, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Finding("sample of the data", "pitch_sign (4)", "WRONG", "pitch_sign, town: turn it")
    monkeypatch.setattr(runner, "sample_finding", lambda *_: wrong)
    with pytest.raises(ConfigError, match=r"would not work as it is: sample of the data: pitch_sign.*enabled=false"):
        preflight(load_config(overrides()))


def test_a_launcher_with_another_number_of_processes_is_refused(
    overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"started 4 processes, 2 on .*devices=2 trainer\.num_nodes=2"):
        runner.Preflight(load_config(overrides("trainer.devices=10"))).check_machine()


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
def test_a_rank_without_memory_ends_all_ranks_with_one_message(
    failing: int, overrides: Overrides, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, torch\n"
        "from coopmap.training.module import PoseLearner\n"
        "step = PoseLearner.training_step\n"
        "def training_step(self, batch, index):\n"
        f"    if int(os.environ.get('LOCAL_RANK', 0)) == {failing}:\n"
        "        raise torch.OutOfMemoryError('CUDA out of memory')\n"
        "    return step(self, batch, index)\n"
        "PoseLearner.training_step = training_step\n"
        "from coopmap.cli.main import main\n"
        "main()\n"
    )
    command = [sys.executable, str(script), "train", *overrides("trainer.devices=2")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert f"error: rank {failing}: out of memory in a step" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ddp_zero1", "fsdp"])
def test_two_ranks_are_what_they_are_without_preflight(strategy: str, overrides: Overrides, tmp_path: Path) -> None:
    rows = []
    for enabled in ("true", "false"):
        here = f"run_dir={tmp_path / enabled}"
        chosen = overrides("trainer.devices=2", f"strategy={strategy}", f"preflight.enabled={enabled}", here)
        command = [sys.executable, "-m", "coopmap.train", *chosen]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert ("all-reduce" in done.stdout) == (enabled == "true")
        rows.append(figures(tmp_path / enabled))
        assert json.loads((tmp_path / enabled / "metrics.json").read_text())["steps"] == 2
        facts = json.loads((tmp_path / enabled / "model.json").read_text())
        assert facts["training_flops"] > 2 * facts["forward_flops"] > 0
    assert rows[0] == rows[1]
