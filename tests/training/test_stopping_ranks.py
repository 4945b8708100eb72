"""Two ranks that are told to stop at different moments end alike, with a checkpoint."""

import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coopmap import load_config
from coopmap.cli.errors import user_errors_end_quietly
from coopmap.runs.seal import damage
from coopmap.train import train_command

Overrides = Callable[..., list[str]]
TRIALS = 10
"""For each of ten seeds."""
PATIENCE_S = 300


def start_rank(rank: int, port: int, overrides: list[str], log: Path) -> int:
    """A rank as a launcher would start it, but forked: nothing is imported anew."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        with user_errors_end_quietly():
            train_command(load_config(overrides), overrides)
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def ended(pids: list[int], patience: float) -> list[int | None]:
    """Exit statuses; ``None`` for what hangs, which is killed."""
    statuses: dict[int, int] = {}
    until = time.monotonic() + patience
    while len(statuses) < len(pids) and time.monotonic() < until:
        for pid in set(pids) - set(statuses):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                statuses[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    for pid in set(pids) - set(statuses):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return [statuses.get(pid) for pid in pids]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for_training(run: Path, pids: list[int]) -> None:
    until = time.monotonic() + PATIENCE_S
    metrics = run / "metrics.csv"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 1):
        assert time.monotonic() < until, "no step was trained"
        assert all(os.waitpid(pid, os.WNOHANG)[0] == 0 for pid in pids)
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "seed"), [*(("ddp", seed) for seed in range(10)), ("fsdp", 0), ("fsdp", 1)])
def test_sigterm_on_two_ranks_at_different_moments(
    strategy: str, seed: int, overrides: Overrides, tmp_path: Path
) -> None:
    generator = random.Random(seed)
    two = ("trainer.devices=2", f"strategy={strategy}")
    settings = (*two, "trainer.max_epochs=1000", "callbacks.validate_at_start=false")
    for trial in range(TRIALS):
        run = tmp_path / f"run{trial}"
        chosen = overrides(*settings, "checkpoint.every_n_minutes=null", f"run_dir={run}")
        logs = [tmp_path / f"rank{rank}.log" for rank in (0, 1)]
        port = free_port()
        pids = [start_rank(rank, port, chosen, logs[rank]) for rank in (0, 1)]
        wait_for_training(run, pids)
        time.sleep(generator.uniform(0, 1))  # in a step, a validation, or a checkpoint's writing
        first = generator.randrange(2)
        os.kill(pids[first], generator.choice((signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)))
        if generator.random() < 0.9:  # else one rank alone is told
            time.sleep(generator.uniform(0, 0.5))
            os.kill(pids[1 - first], signal.SIGTERM)
        statuses = ended(pids, PATIENCE_S)
        said = f"seed {seed}, trial {trial}: " + "\n".join(log.read_text()[-2000:] for log in logs)
        assert statuses == [143, 143], said
        assert damage(run / "checkpoints" / "last.ckpt") is None, said
        assert not list(run.rglob(".*.tmp")), said
        shutil.rmtree(run)
