"""Curves of a run: what it has, with its levels."""

from coopmap.viz.run_curves import draw_run_curves

ROWS = [
    {"step": 0, "val/pose_trans_avg": 9.0, "val/trans_m_mean": 20.0, "val/baseline_trans_m_mean": 25.0},
    {"step": 4, "train/loss": 3.0, "lr/head": 1e-4, "lr/encoder": 1e-5, "grad_norm/head": 2.0, "train/grad_norm": 2.5},
    {"step": 4, "time/step_s": 0.5, "time/data_s": 0.1, "memory/host_gb": 2.0},
    {"step": 5, "val/pose_trans_avg": 7.0, "val/trans_m_mean": 15.0, "val/baseline_trans_m_mean": 25.0},
]


def test_every_panel_has_titles_and_the_legend_names_each_curve_once() -> None:
    figure = draw_run_curves(ROWS)
    titles = [axis.title.text for axis in figure.select_yaxes() if axis.title.text]
    assert titles == [
        "validation pose_trans_avg",
        "translation error, mean (m)",
        "training loss",
        "learning rate",
        "norm of the gradient",
        "time (s)",
        "memory (GB)",
    ]
    used = [axis.title.text for axis in figure.select_xaxes()][: len(titles)]
    assert used == ["optimizer step"] * len(titles)
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(named) == sorted(set(named))
    assert {"before training", "training mean", "head", "encoder", "all parts", "host memory"} <= set(named)


def test_the_level_before_training_spans_the_run() -> None:
    levels = [trace for trace in draw_run_curves(ROWS).data if trace.name == "before training"]
    assert [(trace.x, trace.y) for trace in levels] == [((0, 5), (9.0, 9.0)), ((0, 5), (20.0, 20.0))]
    resumed = [trace for trace in draw_run_curves(ROWS[1:]).data if trace.name == "before training"]
    assert all(len(trace.x) == 0 for trace in resumed)  # nothing was measured at step 0


def test_names_of_parts_are_no_markup_and_an_empty_run_has_a_figure() -> None:
    evil = [{"step": 1, "lr/<b>x</b>": 1.0}]
    assert draw_run_curves(evil).data[0].name == "&lt;b&gt;x&lt;/b&gt;"
    assert len(draw_run_curves([]).data) == 0
