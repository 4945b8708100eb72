"""What preflight says of a run before its first step."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from coopmap import load_config
from coopmap.preflights import facts
from coopmap.preflights.facts import rate_findings, schedule_start
from coopmap.runs.folder import RunFolder

SETTINGS = ["machine=laptop", "optim.lr=1e-3", "optim.warmup_fraction=0.1", "optim.final_lr_fraction=0.01"]
LENGTH = ["trainer.max_epochs=1", "data.steps_per_epoch=100"]


def test_end_points_of_the_learning_rate() -> None:
    config = load_config([*SETTINGS, *LENGTH, "optim.lr_of.encoder=0"])
    found = {finding.what: finding.found for finding in rate_findings(config)}
    assert found == {
        "learning rate": "0.0001 first, 0.001 at step 10, 1e-05 last",
        "learning rate, encoder": "0, frozen",
    }


def test_a_schedule_that_begins_anew_extends_over_the_rest() -> None:
    (finding,) = rate_findings(load_config([*SETTINGS, *LENGTH]), begin=60)
    assert finding.found == "0.00025 first at step 60, 0.001 at step 64, 1e-05 last"


@pytest.mark.parametrize(("reset", "step"), [("[schedule]", 60), ("[]", 20)])
def test_where_the_schedule_of_a_run_that_goes_on_begins(
    reset: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = SimpleNamespace(step=60, record={"schedule_start": 20})
    monkeypatch.setattr(facts, "open_checkpoint", lambda path: stored)
    config = load_config([*SETTINGS, f"resume_reset={reset}", "resume=some"])
    assert schedule_start(config, RunFolder(Path("run"), resume_from=Path("last.ckpt"))) == step
    assert schedule_start(config, RunFolder(Path("run"))) == 0
