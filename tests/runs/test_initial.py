"""``init_from``: the weights of another run, and nothing else of it."""

import shutil
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
from coopmap.runs.initial import may_be_meant
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


def save(file: Path, config: Config) -> None:
    """A checkpoint with a record alone."""
    AtomicCheckpointIO().save_checkpoint({"global_step": 1, "coopmap": {"config": to_yaml(config)}}, file)


@pytest.fixture
def source(config: Config) -> RunFolder:
    """A finished run to take weights from, which has no best checkpoint yet."""
    run = RunFolder(Path(config.runs_root, config.experiment, "source"))
    run.record(config, [])
    save(run.last_checkpoint, config)
    run.metrics_file.write_text("{}")
    return run


def start(asked: Config, name: str) -> tuple[Config, RunFolder]:
    """The first start of a run, up to its first checkpoint."""
    run = RunFolder(Path(asked.runs_root, asked.experiment, name))
    settled, found = open_run(replace(asked, run_dir=str(run.path)), [f"run_dir={run.path}"])
    assert found == run
    run.record(settled, [])
    save(run.last_checkpoint, settled)
    return settled, run


def has_moved(source: RunFolder) -> None:
    source.path.rename(source.path.with_name("elsewhere"))


def has_a_best_checkpoint(source: RunFolder) -> None:
    save(source.best_checkpoint, source.read_config())


@pytest.mark.parametrize("change", [has_moved, has_a_best_checkpoint])
@pytest.mark.parametrize("name", [lambda run: str(run.path), lambda run: run.path.parent.name])
def test_a_restart_goes_on_with_its_run_whatever_has_become_of_the_one_with_the_weights(
    name: Callable[[RunFolder], str],
    change: Callable[[RunFolder], None],
    config: Config,
    source: RunFolder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = replace(config, init_from=name(source), resume="auto")
    began, first = start(asked, "new")
    change(source)
    assert began.init_from == str(source.last_checkpoint)
    for run_dir, overrides in ((asked.run_dir, []), (str(first.path), [f"run_dir={first.path}"])):
        settled, run = open_run(replace(asked, run_dir=run_dir), overrides)
        assert run.resume_from == first.last_checkpoint
        assert (settled.init_from, settled.model) == (began.init_from, began.model)
    assert "differs" not in caplog.text


@pytest.mark.parametrize(
    ("name", "is_meant"),
    [
        ("{root}/a/one", True),
        ("{root}/a", True),  # had one run then
        ("{root}/a/one/checkpoints/last.ckpt", True),
        ("{root}/a/one/checkpoints/best.ckpt", False),
        ("one", True),
        ("a", True),
        ("a/one/", True),
        ("two", False),
        ("b/one", False),
        ("{root}/b/one", False),
        ("elsewhere/a/one", False),
    ],
)
def test_names_that_may_have_led_to_a_checkpoint(name: str, is_meant: bool, tmp_path: Path) -> None:
    settled = f"{tmp_path}/a/one/checkpoints/last.ckpt"
    assert may_be_meant(name.format(root=tmp_path), settled, str(tmp_path)) is is_meant
    assert not may_be_meant("one", settled, str(tmp_path / "elsewhere"))
    assert not may_be_meant("one", None, str(tmp_path))


def test_a_run_with_other_initial_weights_is_another_run(config: Config, source: RunFolder) -> None:
    other = RunFolder(source.path.with_name("other"))
    shutil.copytree(source.path, other.path)
    asked = replace(config, init_from="source", resume="auto")
    _, first = start(asked, "new")
    assert open_run(asked)[1].path == first.path
    for changed in (replace(asked, init_from="other"), replace(asked, init_from=str(other.path))):
        settled, run = open_run(changed)
        assert (run.resume_from, settled.init_from) == (None, str(other.last_checkpoint))
    assert open_run(replace(asked, init_from=None))[1].resume_from is None
    _, without = start(replace(config, resume="auto"), "without")
    assert open_run(asked)[1].path == first.path
    assert open_run(replace(asked, init_from=None))[1].path == without.path


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
