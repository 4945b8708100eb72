"""From the options of a dashboard to its files."""

from __future__ import annotations

from pathlib import Path

from coopmap.config import ConfigError
from coopmap.config.dashboard import DashboardConfig
from coopmap.dashboards.logs import damaged_summaries, read_logs
from coopmap.dashboards.page import write_dashboard
from coopmap.report.files import write_json
from coopmap.runs.outputs import check_output_folder, make_output_folder
from coopmap.runs.reader import common_folder, find_runs, names_of, read_readable_runs

PAGE = "dashboard.html"


def build_page(asked: DashboardConfig) -> tuple[Path, list[str]]:
    """Write the page of one or several runs.

    Returns:
        The page, and what it lacks, in words.

    Raises:
        ConfigError: there is no run, none has logged anything yet, or none can be read.
    """
    places = [asked.run] if asked.run is not None else asked.runs
    folders, empty = find_runs(places, asked.runs_root)
    if not folders:
        raise ConfigError(f"{empty[0]}: this run has logged nothing yet")
    folder = folders[0] if len(folders) == 1 else common_folder(folders)
    if asked.output is not None:
        folder = make_output_folder(asked.output)
    check_output_folder("output", folder)
    names = names_of([*folders, *empty])
    runs, unreadable = read_readable_runs(folders, names)
    notes = [f"{reason}; left out" for reason in unreadable]
    notes += [f"{names[each]} has logged nothing yet and is left out" for each in empty]
    notes += [f"{run.name} has no validation yet, so headlines lack it" for run in runs if not run.validations]
    notes += [f"{file} is damaged and left out" for run in runs for file in damaged_summaries(run)]
    write_dashboard(read_logs(runs), folder / PAGE, notes)
    return folder / PAGE, notes


def build_workspace(asked: DashboardConfig) -> list[Path | str]:
    """Build the W&B workspace and the report on fusion; save them, and write their specifications if asked to.

    Raises:
        ConfigError: wandb-workspaces is not installed, or W&B refuses.
    """
    from coopmap.dashboards.workspace import fusion_report, is_available, save, specification, workspace

    if not is_available():
        raise ConfigError("wandb=...: not installed: pip install coopmap[dashboard]")
    assert asked.wandb is not None
    entity, project = asked.wandb.split("/")
    built = {"workspace": workspace(entity, project), "fusion_report": fusion_report(entity, project)}
    written: list[Path | str] = []
    if asked.output is not None:
        folder = make_output_folder(asked.output)
        for name, each in built.items():
            write_json(specification(each), folder / f"{name}.json")
            written.append(folder / f"{name}.json")
    if asked.upload:
        written += [save(each) for each in built.values()]
    return written
