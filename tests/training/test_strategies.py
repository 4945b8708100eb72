"""Ranks train as one process would, whatever they share."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from coopmap import load_config
from coopmap.config import ConfigError
from coopmap.config.compose import from_yaml, to_yaml
from coopmap.evaluate import evaluate
from coopmap.planning.memory import strategy_name
from coopmap.planning.state import hollow_model, state_bytes
from coopmap.runs.checkpoint_io import read_checkpoint
from coopmap.train import train
from coopmap.training.assembly import trainer_options
from coopmap.training.replay import replay

sys.path.insert(0, str(Path(__file__).parent))
from strategy_worker import Watcher

Overrides = Callable[..., list[str]]
WORKER = Path(__file__).parent / "strategy_worker.py"
CHECKPOINTING = [f"model.checkpointing.{part}=true" for part in ("encoder", "info_sharing", "heads")]
STRATEGIES = ("ddp", "ddp_zero1", "fsdp")
SETTINGS = (
    "callbacks.validate_at_start=false",
    "trainer.max_epochs=1",
    "trainer.limit_val_batches=1",
    "optim.lr=1e-3",
    "checkpoint.every_n_minutes=null",
)


Job = tuple[str, str, list[str]]
"""Kind, name, overrides."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def finished(commands: Sequence[list[str]], environments: Sequence[dict[str, str]], cwd: Path) -> None:
    """Run commands together to their good end."""
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command, environment in zip(commands, environments, strict=True)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(outputs)[-6000:]


def run_ranks(folder: Path, num_ranks: int, jobs: Sequence[Job]) -> dict[str, list[dict[str, Any]]]:
    """Run jobs on a group of processes; for each what its ranks found."""
    folder.mkdir(exist_ok=True)
    texts = [json.dumps({"kind": kind, "name": name, "overrides": chosen}) for kind, name, chosen in jobs]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(num_ranks)}
    environments = [{**place, "NODE_RANK": "0", "LOCAL_RANK": str(r), "RANK": str(r)} for r in range(num_ranks)]
    finished([[sys.executable, str(WORKER), str(folder), *texts]] * num_ranks, environments, folder)
    return {
        name: [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in range(num_ranks)]
        for _, name, _ in jobs
    }


def merged(ranks: Sequence[dict[str, Any]], what: str) -> dict[int, Any]:
    """By place in the global order."""
    return {int(place): value for rank in ranks for place, value in rank[what].items()}


def assert_bytes_are_planned(overrides: list[str], strategy: str, ranks: Sequence[dict[str, Any]]) -> None:
    config = load_config(overrides)
    for rank, found in enumerate(ranks):
        planned = state_bytes(hollow_model(config), config.optim, strategy, len(ranks), rank)
        assert found["kept"] == {
            "parameters": planned.parameters,
            "gradients": planned.gradients,
            "optimizer": planned.optimizer,
        }


@pytest.mark.slow
def test_two_ranks_train_as_one_process_does(overrides: Overrides, tmp_path: Path) -> None:
    alone, settings = Watcher(), (*SETTINGS, "task=augmented")
    chosen = overrides(*settings, "trainer.accumulate_grad_batches=2", f"run_dir={tmp_path}/alone")
    train(load_config(chosen), chosen, [alone])
    assert_bytes_are_planned(chosen, "single", [{"kept": alone.kept}])
    jobs: list[Job] = []
    for name in STRATEGIES:
        checkpointing = [] if name == "ddp" else CHECKPOINTING
        more = ("trainer.devices=2", f"strategy={name}", f"run_dir={tmp_path}/{name}", *checkpointing)
        jobs.append(("train", name, overrides(*settings, *more)))
    found = run_ranks(tmp_path, 2, [*jobs, ("inputs", "inputs", overrides("task=augmented"))])
    assert [rank["lacking"] for rank in found["inputs"]] == [[], []]
    for _, name, asked in jobs:
        losses = merged(found[name], "losses")
        assert sorted(losses) == sorted(alone.losses), name
        assert losses == pytest.approx(alone.losses, rel=1e-4), name
        for rank in found[name]:
            assert rank["norms"] == pytest.approx(alone.norms, rel=1e-4), name
        assert_bytes_are_planned(asked, name, found[name])


def assert_same_tensors(found: Any, expected: Any, place: str = "") -> None:
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), place
        return
    assert found.keys() == expected.keys(), place
    for key in expected:
        assert_same_tensors(found[key], expected[key], f"{place}.{key}")


@pytest.mark.slow
def test_what_four_ranks_saved_goes_on_on_two_and_on_one(overrides: Overrides, tmp_path: Path) -> None:
    # four ranks, and two frames to validate on
    settings = (*SETTINGS, "trainer.max_epochs=2", "trainer.limit_val_batches=0")
    jobs: list[Job] = [
        (
            "train",
            name,
            overrides(
                *settings, "trainer.max_steps=2", "trainer.devices=4", f"strategy={name}", f"run_dir={tmp_path}/{name}"
            ),
        )
        for name in STRATEGIES
    ]
    begun = run_ranks(tmp_path / "begun", 4, jobs)
    for _, name, asked in jobs:
        assert_bytes_are_planned(asked, name, begun[name])
        assert merged(begun[name], "losses") == pytest.approx(merged(begun["ddp"], "losses"), rel=1e-4)
    later = {
        2: dict(zip(STRATEGIES, ("fsdp", "ddp", "ddp_zero1"), strict=True)),
        1: dict.fromkeys(STRATEGIES, "single"),
    }
    samples = {}
    for num_ranks, strategy_of in later.items():
        jobs = [
            (
                "train",
                f"{name}_{num_ranks}",
                overrides(
                    *settings,
                    "trainer.max_steps=3",
                    f"trainer.devices={num_ranks}",
                    f"trainer.accumulate_grad_batches={4 // num_ranks}",
                    f"strategy={strategy_of[name]}",
                    f"resume={tmp_path}/{name}/checkpoints/last.ckpt",
                    f"run_dir={tmp_path}/{name}_{num_ranks}",
                ),
            )
            for name in STRATEGIES
        ]
        ranks = run_ranks(tmp_path / f"on_{num_ranks}", num_ranks, jobs)
        for name in STRATEGIES:
            saved = read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")
            loaded = torch.load(tmp_path / f"on_{num_ranks}" / f"{name}_{num_ranks}.loaded", weights_only=True)
            assert_same_tensors(loaded["model"], saved["state_dict"])
            assert_same_tensors(loaded["optimizer"], saved["optimizer_states"][0]["state"])
            samples[name, num_ranks] = merged(ranks[f"{name}_{num_ranks}"], "samples")
            assert sorted(samples[name, num_ranks]) == [8, 9, 10, 11]
    whole = Watcher()
    chosen = overrides(
        *settings, "trainer.max_steps=3", "trainer.accumulate_grad_batches=4", f"run_dir={tmp_path}/whole"
    )
    train(load_config(chosen), chosen, [whole])
    for found in samples.values():
        assert found == {place: whole.samples[place] for place in range(8, 12)}


@pytest.mark.slow
def test_two_ranks_measure_a_single_batch_as_one_process_does(overrides: Overrides, tmp_path: Path) -> None:
    """One of them has none of its own."""
    settings = (*SETTINGS, "callbacks.validate_at_start=true", "data.max_val_frames=1", "trainer.devices=2")
    jobs: list[Job] = [
        ("train", name, overrides(*settings, f"strategy={name}", f"run_dir={tmp_path}/{name}"))
        for name in ("ddp", "fsdp")
    ]
    run_ranks(tmp_path, 2, jobs)
    for _, name, _ in jobs:
        together = json.loads((tmp_path / name / "metrics.json").read_text())["validations"]["last"]
        alone = evaluate(tmp_path / name / "checkpoints" / "last.ckpt", output=tmp_path / f"{name}_alone").figures
        assert {key: value for key, value in together.items() if key != "step"} == pytest.approx(alone, rel=1e-4)


@pytest.mark.slow
def test_every_rank_can_replay_its_part_of_a_skipped_step(overrides: Overrides, tmp_path: Path) -> None:
    jobs: list[Job] = []
    for name in ("ddp", "fsdp"):
        more = ("trainer.devices=2", f"strategy={name}", f"run_dir={tmp_path}/{name}")
        jobs.append(("skipped", name, overrides(*SETTINGS, "task=augmented", *more)))
    found = run_ranks(tmp_path, 2, jobs)
    for _, name, _ in jobs:
        losses = merged(found[name], "losses")
        files = [tmp_path / name / "skipped" / f"step_2_rank_{rank}.pt" for rank in range(2)]
        assert sorted(files[0].parent.iterdir()) == files
        for rank, file in enumerate(files):
            ((replayed, _),) = replay(file)
            assert replayed.loss == pytest.approx(losses[2 + rank], rel=1e-4), (name, rank)
        has_weights = [torch.load(file, weights_only=True)["weights"] is not None for file in files]
        assert has_weights == [True, False], name


@pytest.mark.slow
def test_ranks_agree_on_checkpoints_by_time_without_waiting_for_gpus(overrides: Overrides, tmp_path: Path) -> None:
    """A broadcast of objects copies from the GPU, which has to end its work before."""
    minutes = ("trainer.devices=2", "trainer.limit_val_batches=0", "checkpoint.every_n_minutes=1e-9")
    found = run_ranks(tmp_path, 2, [("timed", "timed", overrides(*SETTINGS, *minutes, f"run_dir={tmp_path}/run"))])
    assert found["timed"] == [{"saved": [1, 2, 3], "broadcasts": 0}] * 2


@pytest.mark.slow
def test_two_nodes_train_together(overrides: Overrides, tmp_path: Path) -> None:
    place = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "test"]
    place += ["--rdzv-endpoint", f"127.0.0.1:{free_port()}"]
    asked = overrides(*SETTINGS, "strategy=ddp_zero1", "trainer.devices=1", "trainer.num_nodes=2")
    command = [sys.executable, "-m", "torch.distributed.run", *place, "-m", "coopmap.train", *asked]
    finished([command] * 2, [{}] * 2, tmp_path)
    (run,) = (tmp_path / "runs" / "cyl_posefix").iterdir()
    assert "3 steps on 2 process(es)" in (run / "train.log").read_text()
    assert json.loads((run / "metrics.json").read_text())["steps"] == 3


def test_strategies_that_cannot_work_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    two = ["machine=laptop", "trainer.devices=2"]
    with pytest.raises(ConfigError, match=r"strategy=single is one process, but trainer\.devices=2"):
        trainer_options(load_config([*two, "strategy=single"]))
    with pytest.raises(ConfigError, match=r"trainer\.precision=bf16-mixed or 32-true"):
        trainer_options(load_config([*two, "strategy=fsdp", "trainer.precision=16-mixed"]))
    with pytest.raises(ConfigError, match="needs GPUs, whose NCCL sums bfloat16"):
        trainer_options(load_config([*two, "strategy.compress_gradients=true"]))
    with pytest.raises(ConfigError, match="ddp and ddp_zero1 average whole gradients"):
        load_config([*two, "strategy=fsdp", "strategy.compress_gradients=true"])
    assert trainer_options(load_config(["machine=laptop", "strategy=fsdp"]))["strategy"] == "auto"


@pytest.mark.parametrize(
    ("overrides", "shares"),
    [
        (["trainer.strategy=ddp_zero1"], True),
        (["strategy=ddp_zero1", "trainer.strategy=ddp"], False),
        (["strategy=ddp", "trainer.strategy=ddp_zero1"], True),
    ],
)
def test_a_strategy_that_the_trainer_names_is_the_strategy(
    overrides: list[str], shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    config = load_config(["machine=laptop", "trainer.devices=2", *overrides])
    assert trainer_options(config)["strategy"].shards_optimizer is shares
    assert trainer_options(from_yaml(to_yaml(config)))["strategy"].shards_optimizer is shares
    assert strategy_name(config, ranks=2) == ("ddp_zero1" if shares else "ddp")


def test_what_does_not_go_with_a_strategy_is_refused_wherever_it_is_named() -> None:
    with pytest.raises(ConfigError, match=r"optim\.state_bits=8: expected 32 with strategy=fsdp"):
        load_config(["machine=laptop", "optim.state_bits=8", "trainer.strategy=fsdp"])
    with pytest.raises(ConfigError, match=r"strategy\.compress_gradients"):
        load_config(["machine=laptop", "strategy.compress_gradients=true", "trainer.strategy=fsdp"])
    eight = load_config(["machine=local3090", "optim.state_bits=8", "trainer.strategy=ddp"])
    assert (eight.strategy.name, eight.optim.state_bits) == ("ddp", 8)


def test_gradients_are_buckets_and_the_graph_is_static_without_accumulation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    two = ["machine=laptop", "trainer.devices=2", "strategy=ddp"]
    for more, is_static in (([], True), (["trainer.accumulate_grad_batches=2"], False)):
        settings = trainer_options(load_config([*two, *more]))["strategy"]._ddp_kwargs
        assert settings["gradient_as_bucket_view"] is True
        assert settings["static_graph"] is is_static
        assert "find_unused_parameters" not in settings


def test_machines_choose_a_strategy() -> None:
    assert load_config(["machine=local3090"]).strategy.name == "ddp_zero1"
    assert load_config(["machine=local3090", "strategy=fsdp"]).strategy.name == "fsdp"
    assert load_config(["machine=gpu"]).strategy.name == "auto"
