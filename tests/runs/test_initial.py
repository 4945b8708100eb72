"""``init_from``: the weights of another run, and nothing else of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from coopmap.config import Config, ConfigError, load_config
from coopmap.config.compose import to_yaml
from coopmap.models.build import build_model_and_record
from coopmap.runs.checkpoint_io import AtomicCheckpointIO
from coopmap.runs.folder import RunFolder
from coopmap.runs.resume import open_run
from coopmap.training.assembly import build_module


@pytest.fixture
def config(tiny_model: tuple[str, ...], tmp_path: Path) -> Config:
    return load_config([*tiny_model, f"runs_root={tmp_path}"])


@pytest.fixture
def old(config: Config) -> RunFolder:
    """A run with two checkpoints, of which the best has weights of its own."""
    run = RunFolder(Path(config.runs_root, config.experiment, "old"))
    run.record(config, [])
    for file, seed in ((run.last_checkpoint, 1), (run.best_checkpoint, 2)):
        torch.manual_seed(seed)
        module = build_module(config)
        content = {"state_dict": module.state_dict(), "global_step": seed}
        module.on_save_checkpoint(content)
        AtomicCheckpointIO().save_checkpoint(content, file)
    return run


@pytest.mark.parametrize("name", [lambda run: run.path.name, lambda run: str(run.path), lambda run: "latest"])
def test_a_new_run_begins_with_the_weights_of_the_best_checkpoint(
    name: Callable[[RunFolder], str], config: Config, old: RunFolder
) -> None:
    asked = [f"init_from={name(old)}"]
    settled, run = open_run(replace(config, init_from=name(old)), asked)
    assert (run.resume_from, settled.resume) == (None, None)
    assert run.path != old.path
    assert settled.init_from == settled.model.weights == str(old.best_checkpoint)
    model, record = build_model_and_record(settled)
    assert record is not None
    assert record["source"] == str(old.best_checkpoint)
    stored = torch.load(old.best_checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(value, stored[f"model.{key}"]) for key, value in model.state_dict().items())


def test_a_checkpoint_is_taken_by_its_file(config: Config, old: RunFolder) -> None:
    settled, _ = open_run(replace(config, init_from=str(old.last_checkpoint)))
    assert settled.model.weights == str(old.last_checkpoint)


def test_a_restart_goes_on_with_the_run_and_not_from_the_weights(config: Config, old: RunFolder) -> None:
    asked = replace(config, init_from=str(old.path), resume="auto")
    old.metrics_file.write_text("{}")  # finished
    settled, first = open_run(asked)
    assert first.resume_from is None
    first = RunFolder(Path(config.runs_root, config.experiment, "new"))
    first.record(settled, [])
    content = {"global_step": 1, "coopmap": {"config": to_yaml(settled)}}
    AtomicCheckpointIO().save_checkpoint(content, first.last_checkpoint)
    assert open_run(asked)[1].resume_from == first.last_checkpoint


@pytest.mark.parametrize(
    ("changes", "overrides", "message"),
    [
        ({"init_from": "old", "resume": "old"}, [], r"init_from=old resume=old: .*leave one of both out"),
        ({"init_from": "latest", "resume": "auto"}, [], r"init_from=latest resume=auto: .*name the run"),
        ({"init_from": "old"}, ["model.weights=a.pth"], r"init_from=old model\.weights=a\.pth: both say"),
        ({"init_from": "odl"}, [], r"^init_from=odl: no such.*did you mean old\?.*expected latest, a run"),
        ({"resume_reset": ["optimizer"]}, [], r"^resume_reset=\[optimizer\]: name the run"),
        ({"resume_reset": ["schedule"], "resume": "auto"}, [], r"begin anew at every restart"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    changes: dict[str, object], overrides: list[str], message: str, config: Config, old: RunFolder
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_run(replace(config, **changes), overrides)  # type: ignore[arg-type]


def test_other_architectures_and_other_files_are_named(config: Config, old: RunFolder, tmp_path: Path) -> None:
    deeper = replace(config.model, encoder=replace(config.model.encoder, depth=config.model.encoder.depth + 1))
    settled, _ = open_run(replace(config, init_from="old", model=deeper))
    with pytest.raises(ConfigError, match=r"^init_from=.*best\.ckpt: .*does not fit the model: its encoder has"):
        build_model_and_record(settled)
    torch.save({"model": {}}, tmp_path / "foreign.pth")
    with pytest.raises(ConfigError, match=r"init_from=.*foreign\.pth: .*for weights of other kinds use model\.weights"):
        open_run(replace(config, init_from=str(tmp_path / "foreign.pth")))
    (tmp_path / "exported").mkdir()
    with pytest.raises(ConfigError, match=r"^init_from=.*exported: .*; for weights of other kinds use model\.weights"):
        open_run(replace(config, init_from=str(tmp_path / "exported")))
    damaged = old.best_checkpoint
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"init_from=old: .*best\.ckpt"):
        open_run(replace(config, init_from="old"))


def test_parts_to_begin_anew_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"resume_reset=optimiser: .*did you mean optimizer"):
        load_config(["machine=laptop", "resume=latest", "resume_reset=[optimiser]"])
