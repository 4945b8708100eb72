import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from coopmap.benchmarks.loss import OperationCounter, measure
from coopmap.benchmarks.options import LossOptions
from coopmap.cli.main import main
from coopmap.config.checks import ConfigError
from coopmap.config.overrides import typed
from coopmap.losses import criterion as criterion_module

SMALL = ["batch=1", "height=28", "width=56", "repeats=1", "device=cpu"]


def rows(*arguments: str) -> list[dict]:
    return list(measure(typed(LossOptions, [*SMALL, *arguments])).tables[0].records())


def test_memory_grows_with_the_views_and_operations_do_not() -> None:
    two, four = rows("loss=all", "views=[2,4]")
    assert two["input_mib"] < four["input_mib"] == pytest.approx(2 * two["input_mib"], rel=1e-2)
    assert four["peak_ratio"] == pytest.approx(two["peak_ratio"], rel=0.05)
    assert abs(four["operations"] - two["operations"]) < 10


def test_terms_keep_less_than_what_they_are_computed_from(monkeypatch: pytest.MonkeyPatch) -> None:
    (lean,) = rows("loss=overall", "views=4")
    assert lean["kept_mib"] < 1.5 * lean["input_mib"]
    monkeypatch.setattr(criterion_module, "TERMS", [replace(t, recompute=False) for t in criterion_module.TERMS])
    (plain,) = rows("loss=overall", "views=4")
    assert plain["kept_mib"] > 1.5 * lean["kept_mib"]


def test_views_of_tensors_are_no_operations() -> None:
    x: Tensor = torch.zeros(4, 5)
    with OperationCounter() as counter:
        y = x.T[1:] + 1
    assert counter.operations == 1
    assert counter.live_bytes == y.nbytes


def test_results_are_written(tmp_path) -> None:
    main(["bench", "loss", *SMALL, "loss=overall", "views=2", f"output={tmp_path / 'loss.json'}"])
    (row,) = json.loads((tmp_path / "loss.json").read_text())["tables"]["Objective, forward and backward"]
    assert row["views"] == 2
    assert row["ratio"] == 1


@pytest.mark.parametrize(
    ("argument", "message"),
    [("loss=pos", "did you mean pose"), ("views=[]", "views="), ("color=red", "color"), ("repeats=0", "repeats=0")],
)
def test_bad_options_are_named(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        typed(LossOptions, [argument])
