"""Training with ``model.compile``, in one process and in two."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler for CPUs needs g++"),
]
CHECKPOINTING = [f"model.checkpointing.{part}=true" for part in ("encoder", "info_sharing", "heads")]


@pytest.mark.parametrize("devices", [1, 2])
def test_compiled_and_eager_runs_agree(devices: int, overrides: Callable[..., list[str]], tmp_path: Path) -> None:
    """After three steps with checkpointing."""
    figures = {}
    for choice in ("true", "false"):
        chosen = overrides(*CHECKPOINTING, f"model.compile={choice}", f"trainer.devices={devices}")
        chosen += ["trainer.max_epochs=1", "callbacks.validate_at_start=false", f"run_dir={tmp_path / choice}"]
        command = [sys.executable, "-m", "coopmap.train", *chosen]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=800)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "uncompiled" not in done.stdout + done.stderr
        figures[choice] = json.loads((tmp_path / choice / "metrics.json").read_text())["validations"]["last"]
    for name in ("val/loss", "val/pose_trans_avg", "val/trans_m_mean"):
        assert figures["true"][name] == pytest.approx(figures["false"][name], rel=1e-3), name
