"""``coopmap export``: write a run's weights in the released format."""

from __future__ import annotations

from pathlib import Path

from coopmap.cli.main import run_entry_point
from coopmap.config.export import ExportConfig


def export(
    checkpoint: str | Path,
    output: str | Path,
    weights: str | None = None,
    license: str | None = None,
    without_matching: bool = False,
) -> Path:
    """Write a checkpoint in upstream's released format; see :func:`coopmap.runs.export.export`."""
    from coopmap.runs.export import export as run

    return run(checkpoint, output, weights, license, without_matching)


def export_command(asked: ExportConfig) -> None:
    """Find the checkpoint, write the folder, say where."""
    from coopmap.runs.find import find_checkpoint
    from coopmap.runs.logs import log_to

    log_to(None)
    checkpoint = find_checkpoint(asked.run, asked.checkpoint, asked.runs_root)
    folder = export(checkpoint, str(asked.output), asked.weights, asked.license, asked.without_matching)
    print(f"{checkpoint} written to {folder}")


def main() -> None:
    """Command line."""
    run_entry_point("export")


if __name__ == "__main__":
    main()
