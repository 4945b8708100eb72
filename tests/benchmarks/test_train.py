import json

import pytest

from coopmap.benchmarks.options import TrainOptions
from coopmap.benchmarks.train import PARTS, measure
from coopmap.config.checks import ConfigError
from coopmap.config.overrides import typed


def test_parts_of_a_step_beside_its_matrix_products(tiny_model, town, tmp_path) -> None:
    options = typed(TrainOptions, ["steps=2", "device=cpu", f"trace={tmp_path / 'step.json'}"])
    where = [f"data.root={town.root}", f"data.depth_root={town.depth_root}", "data.num_workers=0"]
    rows = {row["part"]: row for row in measure(options, [*tiny_model, *where]).tables[0].records()}
    assert list(rows) == [*PARTS, "step", "its matrix products", "everything else"]
    assert rows["step"]["ms"] == pytest.approx(sum(rows[part]["ms"] for part in PARTS))
    assert 0 < rows["its matrix products"]["ms"] < rows["step"]["ms"]
    names = {event.get("name") for event in json.loads((tmp_path / "step.json").read_text())["traceEvents"]}
    assert {"aten::addmm", "aten::_fused_adamw_"} <= names


def test_a_trace_has_a_name_that_viewers_know() -> None:
    with pytest.raises(ConfigError, match=r"trace=step\.txt"):
        typed(TrainOptions, ["trace=step.txt"])
