import json
import re
import sys
import types

import pytest
import torch
from torch import Tensor

from coopmap.benchmarks.loss import OperationCounter, measure
from coopmap.benchmarks.options import LossOptions
from coopmap.benchmarks.upstream_loss import UPSTREAM
from coopmap.cli.main import main
from coopmap.config.checks import ConfigError
from coopmap.config.overrides import typed

SMALL = ["batch=1", "height=28", "width=56", "repeats=1", "device=cpu"]


def rows(*arguments: str) -> list[dict]:
    return list(measure(typed(LossOptions, [*SMALL, *arguments])).tables[0].records())


def test_memory_grows_with_the_views_and_operations_do_not() -> None:
    two, four = rows("loss=all", "views=[2,4]")
    assert two["input_mib"] < four["input_mib"] == pytest.approx(2 * two["input_mib"], rel=1e-2)
    assert four["peak_ratio"] == pytest.approx(two["peak_ratio"], rel=0.05)
    assert abs(four["operations"] - two["operations"]) < 10


def test_terms_keep_less_than_what_they_are_computed_from() -> None:
    (lean,) = rows("loss=overall", "views=4")
    assert lean["kept_mib"] < 1.5 * lean["input_mib"]


def test_upstream_is_measured_where_it_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with upstream's names, which takes what upstream takes, one view after another."""
    names = set()

    class Weighted(torch.nn.Module):
        def __init__(self, *_, **__) -> None:
            super().__init__()

        def __rmul__(self, _):
            return self

        def __add__(self, _):
            return self

        def forward(self, batch, predictions):
            names.update({*batch[0], *predictions[0]})
            return sum(view["pts3d"].mean() for view in predictions), {}

    module = types.ModuleType("mapanything.train.losses")
    for name in re.findall(r"\b[A-Z]\w+(?=\()", UPSTREAM["overall"]):
        setattr(module, name, Weighted)
    monkeypatch.setitem(sys.modules, "mapanything", types.ModuleType("mapanything"))
    monkeypatch.setitem(sys.modules, "mapanything.train", types.ModuleType("mapanything.train"))
    monkeypatch.setitem(sys.modules, "mapanything.train.losses", module)
    (row,) = rows("loss=overall", "views=2")
    assert row["upstream_ms"] > 0
    assert row["of_upstream"] == pytest.approx((row["forward_ms"] + row["backward_ms"]) / row["upstream_ms"])
    assert {"camera_pose_quats", "depth_along_ray", "cam_quats", "conf"} <= names
    assert rows("loss=pose_dense", "views=2")[0].get("upstream_ms") is None


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
