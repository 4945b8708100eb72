import json
import sys

import pytest
import torch

from coopmap import bench
from coopmap.benchmarks import floor as floors
from coopmap.benchmarks import model as benchmark
from coopmap.benchmarks.floor import Floor
from coopmap.benchmarks.options import ModelOptions
from coopmap.benchmarks.parts import FORWARD, block_inputs, run_pass
from coopmap.cli.main import main
from coopmap.config.checks import ConfigError
from coopmap.config.overrides import typed
from coopmap.models import MapAnything

SMALL = ("model=tiny", "views=2", "height=28", "width=56", "repeats=1", "device=cpu")
LAYERS = 12 * 192 * 192
"""Weights of the four linear layers of a block of the tiny model."""


@pytest.fixture
def idle_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates that need no measuring."""

    def probe(self: Floor) -> None:
        self.flops_per_s = self.best_flops_per_s = 1e11
        self.bytes_per_s = self.best_bytes_per_s = 1e10

    monkeypatch.setattr(Floor, "probe", probe)
    monkeypatch.setattr(benchmark, "SHORTEST_SECONDS", 0.0)


def case(backward: bool = False, checkpointing: bool = False, model: str = "tiny") -> benchmark.Case:
    return benchmark.Case(model, 2, 42, 168, backward, checkpointing)


def test_flops_of_the_parts_are_those_of_their_layers():
    """Two views of 36 patches; two blocks each, of width 192."""
    parts = benchmark.count(case(), ModelOptions(device="cpu")).parts
    assert list(parts) == list(FORWARD)

    def block(batch: int, tokens: int) -> int:
        return 2 * batch * tokens * LAYERS + 4 * batch * tokens**2 * 192

    embedding = 2 * 2 * 36 * 192 * 3 * 14 * 14
    assert parts["encoder"].flops == embedding + 2 * block(2, 37)
    assert parts["multi-view"].flops == block(1, 73) + block(2, 36)
    assert parts["heads"].flops > 0


def test_backward_pass_costs_twice_the_forward_pass_and_is_told_apart_by_part():
    counted = benchmark.count(case(backward=True), ModelOptions(device="cpu")).parts
    attention = {"encoder": 2 * 2 * 37**2, "multi-view": 73**2 + 2 * 36**2, "heads": 0}
    images = 2 * 2 * 36 * 192 * 3 * 14 * 14  # want no gradient
    for part in FORWARD:
        recomputed = 2 * 192 * attention[part] - (images if part == "encoder" else 0)
        assert counted[f"{part}, backward"].flops == 2 * counted[part].flops + recomputed, part


def test_checkpointing_trades_work_for_memory():
    options = ModelOptions(device="cpu")
    generous, frugal = (
        benchmark.count(benchmark.Case("tiny", 2, 252, 1008, True, checkpointing), options)
        for checkpointing in (False, True)
    )
    assert frugal.peak_bytes < 0.6 * generous.peak_bytes
    for part in FORWARD:
        assert frugal.parts[part] == generous.parts[part]
        assert frugal.parts[f"{part}, backward"].flops > 1.15 * generous.parts[f"{part}, backward"].flops


def test_peak_memory_of_inference_holds_the_weights_once():
    weights = 4 * sum(value.numel() for value in meta_model("v11").parameters())
    peak = benchmark.count(case(model="v11"), ModelOptions(device="cpu")).peak_bytes
    assert weights < peak < 1.05 * weights


def meta_model(name: str) -> MapAnything:
    with torch.device("meta"):
        return MapAnything(benchmark.Case(name, 2, 42, 168, False, False).config())


def test_inputs_of_blocks_are_what_blocks_get():
    torch.manual_seed(0)
    model, observation = MapAnything(case().config()), case().observation("cpu")
    expected = block_inputs(model, observation)
    seen = {}
    for name, (block, _) in expected.items():
        block.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: tuple(inputs[0].shape)}))
    run_pass(model, observation, False, lambda: None)
    assert seen == {name: shape for name, (_, shape) in expected.items()}


@pytest.mark.slow
def test_report_has_a_row_for_each_block_pass_and_part(idle_floor, tmp_path, capsys):
    main(["bench", "model", *SMALL, f"output={tmp_path / 'report.json'}"])
    report = json.loads((tmp_path / "report.json").read_text())
    blocks, passes = report["tables"]["Transformer blocks"], report["tables"]["Whole model"]
    sizes = ("tiny, 2 x 42 x 168", "tiny, 2 x 28 x 56")
    assert [row["case"] for row in blocks] == [size for size in sizes for _ in range(6)]
    assert [(row["case"], row["part"]) for row in passes] == [
        (size, part)
        for size in sizes
        for parts in (FORWARD, FORWARD, ())  # the last pass is with checkpointing
        for part in ("all", *parts)
    ]
    for row in blocks + passes:
        assert row["matmul_ms"] == pytest.approx(row["gflop"] * 10)
        assert row["matmul_percent"] == pytest.approx(100 * row["matmul_ms"] / row["ms"])
    whole = passes[0]
    assert whole["tokens_per_s"] == pytest.approx(72 / (whole["ms"] / 1e3))
    assert whole["ms"] == pytest.approx(sum(row["ms"] for row in passes[1:4]))
    assert "flash_attention" in report["notes"]["attention of tiny"]
    assert "Whole model" in capsys.readouterr().out


@pytest.mark.slow
def test_what_does_not_fit_is_left_out(idle_floor, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "available_bytes", lambda device: 1000)
    main(["bench", "model", *SMALL, f"output={tmp_path / 'report.md'}"])
    rows = [line for line in (tmp_path / "report.md").read_text().splitlines() if "left out" in line]
    assert len(rows) == 6


def test_rates_are_work_over_the_shortest_time(monkeypatch):
    """By a clock that says how long products and copies took, one after the other; two probes come first."""
    seconds = iter([4.0, 2.0, 0.5, 0.25, 1.0, 0.5])

    def timed(run, device):
        run()
        return next(seconds)

    monkeypatch.setattr(floors, "best_seconds", timed)
    floor = Floor(torch.device("cpu"))
    product, copy = 2 * 2048**3, 2 * 2**28  # multiply and add; read and written
    assert (floor.flops_per_s, floor.bytes_per_s) == (product / 0.5, copy / 0.25)
    assert floor.seconds(floor.flops_per_s, 3 * floor.bytes_per_s) == 4
    floor.restart()  # under twice the load
    assert (floor.flops_per_s, floor.bytes_per_s) == (product / 1.0, copy / 0.5)
    assert floor.describe().startswith("0.0344 TFLOP/s (float32 2048 x 2048 product), 2.15 GB/s")
    # what was timed is that work
    some = slice(0, 8)
    expected = floor._left[some].double() @ floor._right.double()
    torch.testing.assert_close(floor._product[some].double(), expected, rtol=0, atol=2048 * 2**-23)


def test_the_shortest_run_counts(monkeypatch):
    ticks = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0])
    monkeypatch.setattr(floors.time, "perf_counter", lambda: next(ticks))
    runs = []
    assert floors.best_seconds(lambda: runs.append(1), torch.device("cpu")) == 2.0
    assert len(runs) == 3


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("model=v2", "model=v2: expected one of tiny, v1, v11"),
        ("views=0", "views"),
        ("vews=2", "vews"),
        ("repeats=many", "repeats|many"),
        ("output=table.csv", r"\.md or \.json"),
        ("precision=16", "precision=16"),
    ],
)
def test_mistakes_are_named(argument, message):
    with pytest.raises(ConfigError, match=message):
        typed(ModelOptions, [argument])


def test_benchmarks_are_chosen_by_name(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "model", "--help"])
    bench.main()
    assert "[32-true | bf16-mixed; default: 32-true]" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setattr(sys, "argv", ["bench", "speed"])
    with pytest.raises(SystemExit) as exit_:
        bench.main()
    assert exit_.value.code == 2
    assert "bench speed: no such command; there are model, loss, train, data, fusion, priors" in capsys.readouterr().err
