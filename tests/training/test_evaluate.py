import json
import sys
from pathlib import Path

import pytest

from coopmap import evaluate as program
from coopmap.config import ConfigError
from coopmap.evaluate import evaluate
from coopmap.training.run import TrainingResult


@pytest.mark.parametrize("which", ["best", "last"])
def test_figures_of_training_are_reproduced(finished: TrainingResult, which: str, tmp_path: Path) -> None:
    checkpoint = finished.run.checkpoints / f"{which}.ckpt"
    result = evaluate(checkpoint, output=tmp_path, baselines=[])
    expected = dict(finished.summary["validations"][which])
    step = expected.pop("step")
    assert result.figures == pytest.approx(expected, rel=1e-6, abs=1e-9)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert (written["step"], written["split"], written["inputs"]) == (step, "val", "images")
    assert written["figures"]["val/pose_trans_avg"] == expected["val/pose_trans_avg"]


def test_changes_to_the_stored_configuration_count(finished: TrainingResult, tmp_path: Path) -> None:
    all_frames = evaluate(finished.run.best_checkpoint, output=tmp_path, baselines=[])
    one_frame = evaluate(
        finished.run.best_checkpoint, overrides=["data.max_val_frames=1"], output=tmp_path, baselines=[]
    )
    assert one_frame.figures["val/trans_m_mean"] != all_frames.figures["val/trans_m_mean"]


def test_command_line_finds_the_best_checkpoint_and_prints_the_baseline(
    finished: TrainingResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = [f"run={finished.run.path}", f"output={tmp_path}", "baselines=[mean]"]
    monkeypatch.setattr(sys, "argv", ["evaluate", *own, "data.num_workers=0"])
    program.main()
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "training mean" in printed.out
    summary = finished.summary
    assert f"{summary['trans_m_mean']['best']:.3g}" in printed.out
    assert f"{summary['trans_m_mean']['training_mean']:.3g}" in printed.out
    assert json.loads((tmp_path / "metrics.json").read_text())["checkpoint"] == str(finished.run.best_checkpoint)


def test_wrong_split_and_wrong_override(finished: TrainingResult) -> None:
    with pytest.raises(ConfigError, match="split=vall: expected one of val, test"):
        evaluate(finished.run.best_checkpoint, "vall")
    with pytest.raises(ConfigError, match=r"data\.rot: no such key\. Did you mean data\.root\?"):
        evaluate(finished.run.best_checkpoint, overrides=["data.rot=/x"])
