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

from coopmap import load_config
from coopmap.train import train

sys.path.insert(0, str(Path(__file__).parent))
from strategy_worker import Watcher

Overrides = Callable[..., list[str]]
WORKER = Path(__file__).parent / "strategy_worker.py"
STRATEGIES = ("ddp", "ddp_zero1", "fsdp")
SETTINGS = (
    "callbacks.validate_at_start=false",
    "trainer.max_epochs=1",
    "trainer.limit_val_batches=1",
    "optim.lr=1e-3",
    "checkpoint.every_n_minutes=null",
)


def run_ranks(folder: Path, num_ranks: int, jobs: Sequence[tuple[str, list[str]]]) -> dict[str, list[dict[str, Any]]]:
    """Run jobs on a group of processes; for each what its ranks wrote down."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    texts = [json.dumps({"name": name, "overrides": overrides}) for name, overrides in jobs]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_ranks), "NODE_RANK": "0"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder), *texts],
            env={**os.environ, **place, "LOCAL_RANK": str(rank), "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(outputs)[-6000:]
    return {
        name: [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in range(num_ranks)]
        for name, _ in jobs
    }


def merged(ranks: Sequence[dict[str, Any]], what: str) -> dict[int, Any]:
    """By place in the global order."""
    return {int(place): value for rank in ranks for place, value in rank[what].items()}


@pytest.mark.usefixtures("narrow_encoders")
def test_two_ranks_train_as_one_process_does(overrides: Overrides, tmp_path: Path) -> None:
    alone = Watcher()
    chosen = overrides(*SETTINGS, "task=augmented", "trainer.accumulate_grad_batches=2", f"run_dir={tmp_path}/alone")
    train(load_config(chosen), chosen, [alone])
    jobs = [
        (
            name,
            overrides(
                *SETTINGS, "task=augmented", "trainer.devices=2", f"strategy={name}", f"run_dir={tmp_path}/{name}"
            ),
        )
        for name in STRATEGIES
    ]
    for name, ranks in run_ranks(tmp_path / "found", 2, jobs).items():
        losses = merged(ranks, "losses")
        assert sorted(losses) == sorted(alone.losses), name
        assert losses == pytest.approx(alone.losses, rel=1e-4), name
        print(name, [rank["kept"] for rank in ranks], alone.kept)
