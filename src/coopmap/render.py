"""``coopmap render``: a sample as a model sees it, in three dimensions."""

from __future__ import annotations

from collections.abc import Sequence

from coopmap.cli.main import run_entry_point
from coopmap.config.render import RenderConfig


def render_command(asked: RenderConfig, overrides: Sequence[str]) -> None:
    """Write the files, say where they are and what to suspect."""
    from coopmap.rendering.command import render
    from coopmap.runs.logs import log_to

    log_to(None)
    result = render(asked, overrides)
    for line in result.summary["suspect"]:
        print(f"- {line}")
    names = ("pointcloud.html", "views/", "cloud.ply", "cloud.glb", "summary.json")
    print(f"written to {result.folder}: {', '.join(name for name in names if (result.folder / name).exists())}")


def main() -> None:
    """Command line."""
    run_entry_point("render")


if __name__ == "__main__":
    main()
