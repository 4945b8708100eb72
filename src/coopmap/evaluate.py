"""``coopmap evaluate``: measure a model and write a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coopmap.cli.main import run_entry_point
from coopmap.config.evaluate import EvaluateConfig

if TYPE_CHECKING:
    from coopmap.evaluation.runner import EvaluationResult


def evaluate(
    checkpoint: str | Path | None = None,
    split: str | None = None,
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
    **more: Any,
) -> EvaluationResult:
    """Evaluate a checkpoint, or with ``weights=...`` weights alone.

    Args:
        checkpoint: of a training run.
        split: ``val`` (default), ``test``, ``train`` or ``test_culvercity``.
        overrides: changes to the configuration stored in the checkpoint, or choices for the composed one.
        output: folder for the results.
        more: further keys of :class:`~coopmap.config.evaluate.EvaluateConfig`.

    Raises:
        ConfigError: no such checkpoint, or a wrong override.
    """
    from coopmap.evaluation.runner import run_evaluation

    paths = {key: None if path is None else str(path) for key, path in (("checkpoint", checkpoint), ("output", output))}
    asked = EvaluateConfig(split=split, checkpoint=paths["checkpoint"], output=paths["output"], **more)
    return run_evaluation(asked, overrides)


def evaluate_command(asked: EvaluateConfig, overrides: Sequence[str]) -> None:
    """Evaluate, print the table and the paths of the written files."""
    from coopmap.evaluation.runner import run_evaluation
    from coopmap.evaluation.tables import print_kinds_of_pairs, print_methods
    from coopmap.runs.logs import is_other_rank, log_to

    log_to(None)
    result = run_evaluation(asked, overrides)
    if not is_other_rank():
        print_methods(result.summary, result.name)
        if result.summary["pairs"]:
            print_kinds_of_pairs(result.summary)
        print(f"written to {result.folder}: report.html, samples.csv, pairs.csv, summary.json, metrics.json")
        if result.summary["confidence"]:
            print("                 risk_coverage.csv, reliability.csv, matches_*.png")
        if asked.export:
            print(f"                 {', '.join(f'{name}/' for name in asked.export)}")


def main() -> None:
    """Command line."""
    run_entry_point("evaluate")


if __name__ == "__main__":
    main()
