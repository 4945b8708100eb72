"""Two processes on CPU."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coopmap.evaluate import evaluate

Overrides = Callable[..., list[str]]
TWO_PROCESSES = ("trainer.devices=2", "trainer.max_epochs=1", "callbacks.validate_at_start=false")


def launch(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow  # test_ranks.py has two processes as well, which the command line does not start
def test_processes_share_a_run_and_validate_as_one_would(overrides: Overrides, tmp_path: Path) -> None:
    done = launch([sys.executable, "-m", "coopmap.train", *overrides(*TWO_PROCESSES)], tmp_path)
    (run,) = (tmp_path / "runs" / "cyl_posefix").iterdir()
    assert "3 steps on 2 process(es)" in (run / "train.log").read_text()
    assert done.stdout.count("training mean ") >= 1
    assert done.stdout.count("pose_trans_avg  ") == 1  # one table
    summary = json.loads((run / "metrics.json").read_text())
    alone = evaluate(run / "checkpoints" / "last.ckpt", output=tmp_path / "alone").figures
    together = {name: value for name, value in summary["validations"]["last"].items() if name != "step"}
    assert together == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
def test_sweep_under_torchrun_makes_one_folder_per_job(overrides: Overrides, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launch([*torchrun, "-m", "coopmap.train", "-m", *overrides(*TWO_PROCESSES), "seed=0,1"], tmp_path)
    runs = sorted((tmp_path / "runs" / "cyl_posefix").iterdir())
    assert [run.name.rsplit("_", 2)[1:] for run in runs] == [["seed0", "0"], ["seed1", "1"]]
    assert all((run / "metrics.json").exists() for run in runs)


@pytest.mark.slow
def test_several_ranks_that_resume_agree_on_one_folder(overrides: Overrides, tmp_path: Path) -> None:
    """Each rank looks by itself: none may find what another has just made, or leave a folder that nobody fills."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "coopmap.train", *overrides(*TWO_PROCESSES, "resume=auto")]
    folder = tmp_path / "runs" / "cyl_posefix"
    launch(command, tmp_path)
    (run,) = folder.iterdir()
    (run / "metrics.json").unlink()  # as if it had been stopped in the last measurement
    launch(command, tmp_path)
    assert list(folder.iterdir()) == [run]
    assert len(json.loads((run / "starts.json").read_text())) == 2
    launch(command, tmp_path)  # all are finished: a new one
    (other,) = set(folder.iterdir()) - {run}
    assert (other / "metrics.json").exists()
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_dir() and not any(path.iterdir())]


@pytest.mark.slow
def test_machines_that_draw_a_folder_each_are_told_to_share_one(overrides: Overrides, tmp_path: Path) -> None:
    """Started one by one, as Lightning has it without a launcher."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    nodes = ("trainer.devices=1", "trainer.num_nodes=2", "callbacks.validate_at_start=false")
    command = [sys.executable, "-m", "coopmap.train", *overrides(*nodes)]
    machines = [
        subprocess.Popen(
            command, cwd=tmp_path, env=os.environ | place | {"NODE_RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    for machine in machines:
        said = machine.communicate()[1]
        assert machine.returncode == 2, said
        assert "not the same on all ranks" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_sweep_over_devices_without_torchrun_is_refused(overrides: Overrides, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "coopmap.train", "-m", *overrides(*TWO_PROCESSES), "seed=0,1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "needs torchrun" in done.stderr
