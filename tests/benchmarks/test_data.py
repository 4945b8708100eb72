"""The benchmark of the data on a tiny town: every figure is there, and ratios are those of its columns."""

import pytest

from coopmap.benchmarks import against, data
from coopmap.benchmarks.options import DataOptions
from coopmap.config.checks import ConfigError


@pytest.mark.slow
def test_every_figure_stands_beside_its_floor(town, monkeypatch):
    monkeypatch.setattr(data, "LARGE_SPLIT", 3000)
    places = [f"data.root={town.root}", f"data.depth_root={town.depth_root}", "data.communication_range_m=1000"]
    small = ["data.panorama.height=28", "data.panorama.width=112"]
    report = data.benchmark(DataOptions(repeats=1, samples=3, memory_samples=10, step_s=0.5, gpus=3), [*places, *small])
    costs, cached, rates, scale = (each.records() for each in report.tables)
    assert [row["what"] for row in costs] == [
        "view",
        "view, tilted",
        "view with vehicle masks",
        "view, central geometry",
        "reading a sweep",
        "LiDAR depth",
        "LiDAR: points in the images",
        "LiDAR: culling",
        "training sample",
        "its images",
        "its depth",
    ]
    for row in costs:
        assert row["ratio"] == pytest.approx(row["ms"] / row["floor_ms"])
    kinds = [(row["what"], row["depth"]) for row in cached]
    assert kinds == [(what, depth) for depth in ("dense", "LiDAR") for what in ("training", "validation")]
    for row in cached:
        assert row["speed"] == pytest.approx(row["files_ms"] / row["ms"])
    for row in rates:
        assert row["needed"] == pytest.approx(4 / 0.5 * row["workers"] / row["rate"])
        assert row["needed_all"] == pytest.approx(3 * row["needed"])
    opening, *memory = scale
    assert opening["seconds"] > 0
    assert opening["mb"] > 0
    for row, kind in zip(memory, ["panorama, dense", "panorama, LiDAR", "mosaic"], strict=True):
        assert kind in row["what"]
        assert "10 samples" in row["what"]


@pytest.mark.parametrize("values", [{"samples": 1}, {"step_s": 0.0}, {"gpus": 0}, {"split": "tset"}])
def test_options_without_sense_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        DataOptions(**values)


def test_costs_of_another_revision_stand_beside(town, monkeypatch):
    runs = []

    def costs(code, options, overrides):
        runs.append(code)
        (place,) = [override for override in overrides if override.startswith("data.root=")]
        assert place == f"data.root={town.root}"
        assert (code / "coopmap" / "bench.py").is_file()
        floor_ms = 3.0 - len(runs) / 2
        row = {"what": "view", "ms": 10.0 + len(runs), "floor": "one cv2.remap", "floor_ms": floor_ms, "limit": 4}
        return {"view": row, "only here" if len(runs) % 2 else "only there": row}

    monkeypatch.setattr(against, "_costs", costs)
    try:
        report = against.compare(DataOptions(against="HEAD"), [f"data.root={town.root}"])
    except ConfigError as error:
        pytest.skip(f"not a git checkout: {error}")
    assert runs[0] == runs[2] != runs[1] == runs[3]
    assert not runs[1].exists()
    (row,) = report.tables[0].records()
    assert (row["what"], row["ms"], row["there"]) == ("view", 11, 12)
    assert row["ratio"] == pytest.approx(11 / 12)
    assert (row["floor"], row["floor_ms"], row["limit"]) == ("one cv2.remap", 1, 4)
    assert row["over_floor"] == 11


def test_a_revision_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="needs a git checkout and one of its revisions"):
        against.compare(DataOptions(against="no-such-revision"))
