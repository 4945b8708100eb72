import csv
import math
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from coopmap import bench, load_config
from coopmap.cli.arguments import options_of, read
from coopmap.cli.commands import find_command
from coopmap.config.checks import ConfigError
from coopmap.config.compose import to_yaml
from coopmap.config.noise import NoiseStudyConfig
from coopmap.evaluation.noise import SWEEPS, Level, Measurement, noise_table, outcomes
from coopmap.evaluation.noise_figure import noise_figure
from coopmap.evaluation.noise_study import Study, find_groups
from coopmap.report.numbers import DASH
from coopmap.report.pages import render
from coopmap.runs.groups import Group
from coopmap.runs.reader import Run

from ..untrained import write_checkpoint

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def make_run(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Writes the folder of an untrained run."""
    runs = tmp_path_factory.mktemp("runs")

    def make(name: str, *overrides: str) -> Path:
        config = load_config([*tiny, *overrides])
        write_checkpoint(runs / name, config)
        (runs / name / "config.yaml").write_text(to_yaml(config))
        (runs / name / "metrics.csv").write_text("step\n")
        return runs / name

    return make


@pytest.fixture(scope="module")
def written(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and printed text of one call of the command on two runs."""
    runs = [make_run(f"seed{seed}", "priors=noisy", f"seed={seed}") for seed in (0, 1)]
    output = tmp_path_factory.mktemp("bench") / "priors"
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        arguments = [f"runs={','.join(map(str, runs))}", "levels=0/0,1/2", f"output={output}", "data.max_val_frames=1"]
        patch.setattr("sys.argv", ["bench", "priors", *arguments])
        bench.main()
    return output, printed.getvalue()


def test_the_command_writes_a_row_per_run_and_level(written: tuple[Path, str]) -> None:
    with (written[0] / "priors.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    found = [(row["seed"], row["trans_noise_m"], row["rot_noise_deg"]) for row in rows]
    assert found == [(seed, *level) for level in (("0", "0"), ("1", "2"), ("", "")) for seed in "01"]
    exact, noisy, without = (rows[number : number + 2] for number in (0, 2, 4))
    for row in exact:
        assert float(row["in_trans_m"]) == pytest.approx(0, abs=1e-4)
        assert float(row["in_rot_deg"]) == pytest.approx(0, abs=1e-3)
        assert row["ratio_trans_m"] == row["ratio_rot_deg"] == ""
    assert noisy[0]["in_trans_m"] == noisy[1]["in_trans_m"]
    for row in noisy:
        for error in ("trans_m", "rot_deg"):
            ratio = float(row[f"out_{error}"]) / float(row[f"in_{error}"])
            assert float(row[f"ratio_{error}"]) == pytest.approx(ratio, rel=1e-4)
        assert 0.05 < float(row["in_trans_m"]) < 10
        assert 0.05 < float(row["in_rot_deg"]) < 20
    assert all(row["in_trans_m"] == "" and float(row["out_trans_m"]) > 0 for row in without)


def test_the_command_tells_its_progress_and_shows_the_table(written: tuple[Path, str]) -> None:
    folder, printed = written
    assert [f"{number} of 6" in printed for number in range(1, 7)] == [True] * 6
    assert "seed 1, noise 1, 2: " in printed
    text = (folder / "priors.md").read_text()
    assert "1 samples" in text
    assert "data.max_val_frames=1" in text
    assert [line[: line.index("|", 1)] for line in text.splitlines() if line.startswith("|")] == [
        "| noise (m, deg) ",
        "| --- ",
        "| 0, 0 ",
        "| 1, 2 ",
        "| no prior ",
    ]
    page = (folder / "priors.html").read_text()
    assert 'id="figures"' in page
    assert "src='http" not in page
    assert 'src="http' not in page


def test_a_run_that_takes_no_poses_is_named_with_what_to_do(make_run: MakeRun) -> None:
    blind = make_run("blind")
    with pytest.raises(ConfigError, match=r"blind: this model takes no pose priors.*priors=noisy"):
        find_groups([str(blind)])


def test_a_run_without_checkpoint_is_named_before_anything_is_measured(make_run: MakeRun) -> None:
    early = make_run("early", "priors=noisy")
    (early / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(ConfigError, match="early: there is no checkpoint in it"):
        find_groups([str(early)])


def test_a_place_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^runs={tmp_path}: holds no run"):
        find_groups([str(tmp_path)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["levels=1/2"], "runs: expected run folders"),
        (["runs=a", "levels=1"], "levels=1: expected meters/degrees"),
        (["runs=a", "levels=1/-2"], "levels=1/-2: expected meters/degrees"),
        (["runs=a", "levels=1/nan"], "levels=1/nan: expected meters/degrees"),
        (["runs=a", "levels="], "levels: expected meters/degrees"),
        (["runs=a", "split=vall"], "split=vall: expected one of val, test"),
        (["runs=a", "level=1/2"], "level: no such key. Did you mean levels?"),
        (["runs=a", "priors=gps"], "priors=gps: the study varies the noise"),
        (["runs=a", "priors.trans_noise_m=1"], "priors.trans_noise_m=1: the study varies the noise"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        study_of(*arguments)
    assert str(raised.value).startswith(message)


def study_of(*arguments: str) -> tuple[NoiseStudyConfig, Study]:
    command, _ = find_command(["bench", "priors"])
    assert command is not None
    found = read(command, arguments)
    asked = options_of(command, found)
    return asked, Study.of(asked, found.overrides)


def test_options_are_read() -> None:
    asked, study = study_of("runs=a,b", "levels=0.5/1,2/4,0.5/1", "data.root=/x", "seed=3")
    assert asked.runs == ["a", "b"]
    assert study.levels == (Level(0.5, 1), Level(2, 4))
    assert study.overrides == ("data.root=/x", "seed=3")
    assert study_of("a", "b", "split=test")[0].runs == ["a", "b"]
    default = study_of("runs=a")[1]
    assert [SWEEPS.index(level.sweeps[0]) for level in default.levels] == [0] * 7 + [1] * 6 + [2] * 5
    assert max(level.trans_m for level in default.levels) == max(level.rot_deg for level in default.levels) == 10


def run(seed: int = 0, experiment: str = "four_camera") -> Run:
    name = f"{experiment}/seed{seed}"
    return Run(Path("runs", name), name, {"experiment": experiment, "seed": seed}, [], [], {}, None, True)


def measured(
    seed: int, level: Level | None, given: tuple[float, float] | None, out: tuple[float, float]
) -> Measurement:
    errors = ("trans_m", "rot_deg")
    return Measurement(
        run(seed), level, dict(zip(errors, given or (), strict=False)), dict(zip(errors, out, strict=True)), 42, 252
    )


MEASURED = [
    measured(0, Level(2, 4), (4.0, 4.0), (2.0, 6.0)),
    measured(1, Level(2, 4), (4.0, 5.0), (4.0, 6.0)),
    measured(0, Level(2, 0), (4.0, 1e-5), (5.0, 1.0)),
    measured(1, Level(2, 0), (4.0, 1e-5), (5.0, 1.0)),
    measured(0, None, None, (9.0, 80.0)),
    measured(1, None, None, (9.0, 82.0)),
]


def test_ratios_are_of_each_run_and_spread_over_runs() -> None:
    both, meters, without = outcomes(MEASURED)
    assert both.ratio["trans_m"].values == (0.5, 1.0)
    assert both.ratio["trans_m"].mean == 0.75
    assert both.ratio["trans_m"].std == pytest.approx(math.sqrt(0.125))
    assert both.ratio["rot_deg"].values == (1.5, 1.2)
    assert meters.ratio["trans_m"].mean == 1.25
    assert meters.ratio["rot_deg"] is None
    assert without.given == without.ratio == {"trans_m": None, "rot_deg": None}


def test_the_table_has_dashes_where_nothing_went_in() -> None:
    table = noise_table(Group("four_camera", (run(0), run(1))), outcomes(MEASURED))
    assert [section.title for section in table.sections] == ["meters and degrees", "meters alone"]
    both, without = map(table.texts, table.sections[0].rows)
    assert both == ["2, 4", "4", "3 ± 1.4", "0.75 ± 0.35", "4.5 ± 0.71", "6 ± 0", "1.35 ± 0.21"]
    assert without == ["no prior", DASH, "9 ± 0", DASH, DASH, "81 ± 1.4", DASH]
    assert [set(row.marked) for row in table.sections[0].rows] == [{3}, set()]
    assert [table.texts(row) for row in table.sections[1].rows] == [
        ["2, 0", "4", "5 ± 0", "1.25 ± 0", "0", "1 ± 0", DASH]
    ]


def test_the_figure_has_a_trace_per_sweep_with_bars_over_runs() -> None:
    figure = noise_figure({"four_camera": outcomes(MEASURED)})
    drawn = {(trace.name, trace.xaxis): trace for trace in figure.data}
    both = drawn["meters and degrees", "x"]
    assert (list(both.x), list(both.y), list(both.error_y.array)) == ([4], [3], [pytest.approx(math.sqrt(2))])
    ratio = drawn["meters and degrees", "x3"]
    assert (list(ratio.x), list(ratio.y)) == ([2], [0.75])
    diagonal = drawn["out = in", "x"]
    assert list(diagonal.x) == list(diagonal.y)
    # rotations do not err where meters alone are off, so there is nothing to be better than
    assert ("meters alone", "x2") not in drawn
    assert ("meters alone", "x4") not in drawn


def test_names_are_escaped() -> None:
    name = "a <b>bold</b> & name"
    table = noise_table(Group(name, (run(experiment="plain"),)), outcomes(MEASURED))
    figure = noise_figure({name: outcomes(MEASURED), "other": outcomes(MEASURED)})
    page = render("noise.html", title="title <i>", facts="facts <i>", tables=[table], figure=figure)
    assert "<b>bold" not in page
    assert "title <i>" not in page
    assert "facts <i>" not in page
    assert "<h2>a &lt;b&gt;bold&lt;/b&gt; &amp; name</h2>" in page
    figure = noise_figure({name: outcomes(MEASURED), "other": outcomes(MEASURED)})
    assert "a &lt;b&gt;bold&lt;/b&gt; &amp; name: meters alone" in {trace.name for trace in figure.data}
