import json
from pathlib import Path

import pytest

from coopmap import bench
from coopmap.benchmarks.fusion import FIGURES, RATIOS, VARIANTS, variant_config
from coopmap.benchmarks.options import FusionOptions
from coopmap.config.checks import ConfigError
from coopmap.config.overrides import typed

DIM = 192
"""Width of the tiny model."""

CELLS = 2 * 3 * 12
"""Patches of two cars' panoramas of 42 x 168."""

CAMERA_PATCHES = 8 * 3 * 4
"""Patches of their cameras of 42 x 56."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Tables of one run of the command, rows by variant."""
    output = tmp_path_factory.mktemp("bench") / "fusion.json"
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["model=tiny", "agents=2", "repeats=1", "device=cpu", "threads=1", f"output={output}"]
        patch.setattr("sys.argv", ["bench", "fusion", *arguments])
        bench.main()
    tables = json.loads(Path(output).read_text())["tables"]
    return {title: {row["variant"]: row for row in rows} for title, rows in tables.items()}


@pytest.mark.slow  # a training step of every variant
def test_every_variant_has_all_figures_and_ratios(report: dict[str, dict]) -> None:
    figures, ratios = report["Training step"], report["Ratios to four_camera"]
    assert tuple(figures) == tuple(ratios) == VARIANTS
    for name in VARIANTS:
        assert set(figures[name]) == set(FIGURES)
        assert set(ratios[name]) == set(RATIOS)
        parts = [figures[name][key] for key in ("forward_ms", "backward_ms", "optimizer_ms")]
        assert min(parts) > 0
        assert figures[name]["step_ms"] == pytest.approx(sum(parts))


@pytest.mark.slow  # a training step of every variant
def test_ratios_are_to_the_4n_baseline(report: dict[str, dict]) -> None:
    figures, ratios = report["Training step"], report["Ratios to four_camera"]
    assert {key: value for key, value in ratios["four_camera"].items() if key != "variant"} == {
        key: 1 for key in RATIOS if key != "variant"
    }
    for key in ("step_ms", "peak_mb", "gflop"):
        expected = figures["fusion_conv_gru"][key] / figures["four_camera"][key]
        assert ratios["fusion_conv_gru"][key] == pytest.approx(expected)


@pytest.mark.slow  # a training step of every variant
def test_tokens_are_patches_of_cameras_or_of_panoramas(report: dict[str, dict]) -> None:
    """The encoder's tokens hold one class token per view."""
    for name, row in report["Training step"].items():
        views = 8 if name.startswith("four_camera") else 2
        patches = CAMERA_PATCHES if name.startswith(("four_camera", "mosaic")) else CELLS
        tokens = (row["views"], row["encoder_tokens"], row["multi_view_tokens"])
        assert tokens == (views, patches + views, patches), name


@pytest.mark.slow  # a training step of every variant
def test_parameters_and_work_of_blocks_are_those_worked_by_hand(report: dict[str, dict]) -> None:
    figures = report["Training step"]

    def more(key: str, variant: str, than: str = "cyl_posefix") -> float:
        return figures[variant][key] - figures[than][key]

    directions = (8 + 4) * DIM  # of azimuths and elevations; of slots
    assert more("m_parameters", "four_camera") == 0
    assert more("m_parameters", "four_camera_rig") == pytest.approx((4 + 2) * DIM / 1e6)  # of slots, and of cars
    assert more("m_parameters", "fusion_mean") == pytest.approx(directions / 1e6)
    assert more("m_parameters", "fusion_concat") == pytest.approx((directions + 12 * 14 * 14 * DIM) / 1e6)
    # Forward, and weights' gradients: camera patches embedded instead of panorama patches, and directions. Forward
    # only: rays of each cell turned into each camera.
    twice = (CAMERA_PATCHES - CELLS) * 3 * 14 * 14 * DIM + CELLS * directions
    assert more("gflop", "fusion_mean") == pytest.approx((2 * 2 * twice + 2 * 4 * CELLS * 3 * 3) / 1e9)


@pytest.mark.slow  # a training step of every variant
def test_memory_holds_weights_gradients_and_two_moments(report: dict[str, dict]) -> None:
    for row in report["Training step"].values():
        assert 16 < row["peak_mb"] / row["m_parameters"] < 24


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("model=v2", "model=v2: expected one of tiny, v1"),
        ("agents=7", "agents=7"),
        ("agent=2", "agent"),
        ("repeats=0", "repeats=0"),
        ("output=table.csv", r"\.md or \.json"),
    ],
)
def test_mistakes_are_named(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        typed(FusionOptions, [argument])


def test_other_keys_reach_the_configuration(tmp_path: Path) -> None:
    overrides = ["model.checkpointing.heads=true", "data.panorama.width=336"]
    config = variant_config(FusionOptions(agents=3), overrides, "fusion_mean", tmp_path)
    assert config.model.checkpointing.heads
    assert config.data.panorama.width == 336
    assert config.data.min_agents == config.data.max_agents == 3
    assert config.model.fusion.kind == "mean"
