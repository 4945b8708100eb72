"""``python -m coopmap.evaluate run=RUN_FOLDER | checkpoint=FILE [split=val] [output=FOLDER] [key=value ...]``.

Measures a checkpoint as training's validation does, images only, and prints the figures beside those of always
answering with the training set's mean pose.

  run         run folder; its best checkpoint is taken
  checkpoint  checkpoint file; it carries its configuration
  split       val (default) or test
  output      folder for metrics.json; default: evaluation_SPLIT beside the checkpoint's folder
  key=value   changes to the stored configuration, e.g. data.root=/data/opv2v data.num_workers=8
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coopmap.cli import user_errors_end_quietly
from coopmap.config import Config, ConfigError
from coopmap.config.checks import require_choice
from coopmap.config.compose import from_yaml
from coopmap.config.errors import nearest_key

if TYPE_CHECKING:
    import lightning as L

SPLITS = ("val", "test")
OWN_KEYS = ("run", "checkpoint", "split", "output")


@dataclass(frozen=True)
class EvaluationResult:
    """Figures of one checkpoint on one split.

    Attributes:
        checkpoint: what was measured.
        figures: by name, ``val/pose_trans_avg`` and so on.
        file: where they were written.
    """

    checkpoint: Path
    figures: dict[str, float]
    file: Path


def evaluate(
    checkpoint: str | Path, split: str = "val", overrides: Sequence[str] = (), output: str | Path | None = None
) -> EvaluationResult:
    """Measure a checkpoint.

    Args:
        checkpoint: of a training run.
        split: ``val`` or ``test``.
        overrides: changes to the configuration stored in the checkpoint.
        output: folder for ``metrics.json``.

    Raises:
        ConfigError: no such checkpoint, or a wrong override.
    """
    from coopmap.checkpoint_io import read_checkpoint
    from coopmap.data import OPV2VDataModule
    from coopmap.report import write_json
    from coopmap.training import build_module

    require_choice("split", split, SPLITS)
    checkpoint = Path(checkpoint)
    content = read_checkpoint(checkpoint)
    config = from_yaml(content["coopmap"]["config"], overrides)
    config.model.weights = None  # the checkpoint holds them all
    module = build_module(config)
    module.load_state_dict(content["state_dict"])
    module.on_load_checkpoint(content)
    datamodule = OPV2VDataModule(config.data, config.seed)
    trainer = _build_trainer(config, overrides)
    measure = trainer.validate if split == "val" else trainer.test
    (measured,) = measure(module, datamodule=datamodule, verbose=False)
    figures = {name: float(value) for name, value in measured.items()}

    folder = Path(output) if output is not None else checkpoint.absolute().parents[1] / f"evaluation_{split}"
    origin = {"checkpoint": str(checkpoint), "step": content["global_step"], "overrides": list(overrides)}
    if trainer.is_global_zero:
        write_json({**origin, "split": split, "inputs": "images", "figures": figures}, folder / "metrics.json")
    return EvaluationResult(checkpoint, figures, folder / "metrics.json")


def _build_trainer(config: Config, overrides: Sequence[str]) -> L.Trainer:
    """One device of whatever is here, at the precision of training, unless overrides say otherwise."""
    import lightning as L

    from coopmap.training import trainer_options

    asked_for = {override.partition("=")[0] for override in overrides}
    defaults = {"accelerator": "auto", "devices": 1, "strategy": "auto", "num_nodes": None, "fast_dev_run": None}
    for name, value in defaults.items():
        if f"trainer.{name}" not in asked_for:
            setattr(config.trainer, name, value)
    return L.Trainer(
        **trainer_options(config),
        logger=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        enable_progress_bar=sys.stdout.isatty(),
    )


def main() -> None:
    """Command line."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    with user_errors_end_quietly():
        own, overrides = _split_arguments(arguments)
        checkpoint = _find_checkpoint(own)
        from coopmap.report import print_evaluation
        from coopmap.run_folder import is_other_rank, log_to

        log_to(None)
        split = own.get("split", "val")
        result = evaluate(checkpoint, split, overrides, own.get("output"))
        if not is_other_rank():
            print_evaluation(result.figures, split, str(result.checkpoint))
            print(f"written to {result.file}")


def _split_arguments(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """This program's own keys, and overrides of the stored configuration."""
    own: dict[str, str] = {}
    overrides = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key in OWN_KEYS and equals:
            own[key] = value
        elif not equals or ("." not in key and nearest_key(key, OWN_KEYS)):
            hint = nearest_key(key, OWN_KEYS)
            raise ConfigError(f"{argument}: expected key=value" if not equals else f"{key}: did you mean {hint}?")
        else:
            overrides.append(argument)
    return own, overrides


def _find_checkpoint(own: dict[str, str]) -> Path:
    from coopmap.run_folder import RunFolder

    if ("run" in own) == ("checkpoint" in own):
        raise ConfigError("give either run=RUN_FOLDER or checkpoint=FILE")
    if "checkpoint" in own:
        return Path(own["checkpoint"])
    run = RunFolder(Path(own["run"]))
    if not run.path.is_dir():
        raise ConfigError(f"run={run.path}: there is no such folder")
    return run.best_checkpoint if run.best_checkpoint.exists() else run.last_checkpoint


if __name__ == "__main__":
    main()
