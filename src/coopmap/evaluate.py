"""``python -m coopmap.evaluate run=FOLDER | checkpoint=FILE | weights=HUB_ID|FILE|FOLDER [key=value ...]``.

Measures a model and writes a report: figures per sample and per pair of agents, means, medians and bootstrap
intervals, beside the training set's mean pose, noisy GPS, and GPS refined by registering the LiDAR sweeps.

  run         run folder; its best checkpoint is taken
  checkpoint  checkpoint file; it carries its configuration
  weights     weights alone: hub id, file or folder; model=, data= and so on are composed as for training
  split       val (default), test, train or test_culvercity
  frames      JSON list of frames instead, such as experiments/frames/opv2v_test_10.json
  task        what the model is given: images_only (default, however it was trained), calibrated, posed, registration
  refine      true: also average the predictions with each agent in turn as the reference
  icp         false: do without the registration of LiDAR sweeps
  output      folder for the results, which replace earlier ones there
  key=value   changes to the configuration, e.g. data.root=/data/opv2v data.num_workers=8 trainer.devices=4

Details: docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coopmap.cli.arguments import run_program, split_arguments
from coopmap.config import Config, ConfigError
from coopmap.config.compose import config_groups
from coopmap.config.errors import nearest_key
from coopmap.config.evaluate import EvaluateConfig

if TYPE_CHECKING:
    from coopmap.evaluation.runner import EvaluationResult

OWN_KEYS = tuple(field.name for field in fields(EvaluateConfig))


def evaluate(
    checkpoint: str | Path | None = None,
    split: str | None = None,
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
    **more: Any,
) -> EvaluationResult:
    """Measure a checkpoint, or with ``weights=...`` weights alone.

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


def main() -> None:
    """Command line."""
    run_program(__doc__, _run)


def _run(arguments: Sequence[str]) -> None:
    asked, overrides = parse(arguments)
    from coopmap.evaluation.runner import run_evaluation
    from coopmap.evaluation.tables import print_methods
    from coopmap.runs.logs import is_other_rank, log_to

    log_to(None)
    result = run_evaluation(asked, overrides)
    if not is_other_rank():
        print_methods(result.summary, result.name)
        print(f"written to {result.folder}: report.html, samples.csv, pairs.csv, summary.json, metrics.json")


def parse(arguments: Sequence[str]) -> tuple[EvaluateConfig, list[str]]:
    """This program's own keys (``refine=true`` or ``evaluate.refine=true``), and overrides of the configuration.

    Raises:
        ConfigError: an argument is no ``key=value``, or a key or value of its own is wrong.
    """
    own, overrides = split_arguments(arguments, OWN_KEYS, _is_override, prefix="evaluate.")
    values: dict[str, Any] = {
        name: _flag(name, value) if name in ("refine", "icp") else value for name, value in own.items()
    }
    return EvaluateConfig(**values), overrides


def _is_override(key: str) -> bool:
    """Whether a key is a group or key of the configuration, or at least looks like none of this program's."""
    known = [*config_groups(), *(field.name for field in fields(Config))]
    return "." in key or key in known or nearest_key(key, OWN_KEYS) is None


def _flag(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ConfigError(f"{name}={value}: expected true or false")
    return value.lower() == "true"


if __name__ == "__main__":
    main()
