"""The W&B workspace of a project, and a report that compares kinds of fusion (optional extra ``dashboard``).

Both are specifications, built and checked without network; saving them needs it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from coopmap.config import ConfigError
from coopmap.dashboards.panels import MAIN, SUCCESSES, Panel, sections
from coopmap.runs.summary import HEADLINES

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

STEP = "trainer/global_step"
"""The clock that Lightning logs to W&B."""
ZERO_SHOT = {f"val/{name}": f"zero_shot/{name}" for name in ("pose_trans_avg", "trans_m_mean", "rot_deg_mean")}
"""What training logs to W&B again and again: the value before the first step."""
EXPECTED = (
    *(name for _, name, _ in HEADLINES),
    *(baseline for _, _, baseline in HEADLINES if baseline is not None),
    *SUCCESSES.values(),
    *("val/mask_pred_mean", "val/mask_true_mean", "val/scale_ratio_median", "val/depth_abs_rel"),
    *("time/step_s", "time/data_s", "time/samples_per_s", "memory/device_gb", "memory/host_gb", "memory/loaders_gb"),
    *("train/loss", "train/grad_norm"),
)
"""Metrics that every run logs; losses, learning rates and gradients have names of the model's parts."""
PATTERNS = {
    "Losses by term": {"training": "train/.*_avg", "validation": "val/[a-z0-9_]*_avg"},
    "System and optimizer": {"learning rate": "lr/.*", "norm of the gradient": "grad_norm/.*"},
}
"""Panels of all metrics whose names match."""
FUSION_HEADLINES = (MAIN, "val/trans_m_median", "val/rot_deg_median", "time/step_s")


def is_available() -> bool:
    """Whether wandb-workspaces is installed."""
    return find_spec("wandb_workspaces") is not None


def workspace(entity: str, project: str) -> ws.Workspace:
    """The workspace, section by section as the page; then pictures of fixed frames."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    parts = []
    for number, section in enumerate(sections(EXPECTED)):
        panels: list[Any] = [_line_plot(panel) for panel in section.panels]
        panels += [
            wr.LinePlot(title=title, x=STEP, metric_regex=pattern, log_y=pattern.startswith(("lr", "grad")))
            for title, pattern in PATTERNS.get(section.title, {}).items()
        ]
        columns = 1 if number == 0 else 3
        layout = ws.SectionLayoutSettings(columns=columns, rows=-(-len(panels) // columns))
        parts.append(
            ws.Section(name=section.title, panels=panels, is_open=True, pinned=number == 0, layout_settings=layout)
        )
    media = wr.MediaBrowser(title="the same frames at every validation", media_keys=["live/frame_0", "live/points_0"])
    parts.append(ws.Section(name="Frames", panels=[media], is_open=True))
    return ws.Workspace(
        entity=entity,
        project=project,
        name="coopmap",
        sections=parts,
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=20),
    )


def _line_plot(panel: Panel) -> wr.LinePlot:
    """A panel, with the training mean beside what it compares with."""
    import wandb_workspaces.reports.v2 as wr

    keys = [*panel.keys.values(), *([panel.baseline] if panel.baseline is not None else [])]
    zero_shot = [ZERO_SHOT[key] for key in keys if key in ZERO_SHOT]
    return wr.LinePlot(
        title=panel.title,
        x=STEP,
        y=[*keys, *zero_shot],
        title_x="optimizer step",
        title_y=panel.title,
        log_y=panel.is_log,
    )


def fusion_report(entity: str, project: str) -> wr.Report:
    """Kinds of fusion side by side: runs grouped by experiment, mean and range over seeds."""
    import wandb_workspaces.reports.v2 as wr

    # Without a project of its own the set has the report's; with one, it would be looked up.
    runs = wr.Runset(name="by experiment", groupby=["config.experiment"])
    titles = {name: label for label, name, _ in HEADLINES} | {"time/step_s": "time per step (s)"}
    experiment = wr.Config("experiment")
    panels: list[Any] = []
    for name in FUSION_HEADLINES:
        common: dict[str, Any] = {"groupby": experiment, "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
        panels.append(wr.LinePlot(title=titles[name], x=STEP, y=[name], title_x="optimizer step", **common))
        panels.append(wr.BarPlot(title=f"{titles[name]}, last", metrics=[name], **common))
    return wr.Report(
        entity=entity,
        project=project,
        title="coopmap: fusion variants",
        description="Runs of conf/experiment grouped by experiment: mean over seeds, range shaded.",
        blocks=[
            wr.P(
                "pose_trans_avg is normalized and weighted; meters and degrees stand below it. Compare at equal steps."
            ),
            wr.PanelGrid(runsets=[runs], panels=panels),
        ],
        width="fluid",
    )


def specification(built: Any) -> dict[str, Any]:
    """What would be sent to W&B."""
    content: dict[str, Any] = built._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    return content


def save(built: Any) -> str:
    """Save to W&B; its address.

    Raises:
        ConfigError: W&B cannot be reached, or refuses.
    """
    try:
        return str(built.save().url)
    except Exception as error:  # of wandb, requests or the service: all mean that nothing was saved
        raise ConfigError(f"wandb={built.entity}/{built.project}: W&B did not take it: {error}") from error
