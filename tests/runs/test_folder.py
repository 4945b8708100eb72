import json
import logging
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from coopmap.config import Config, ConfigError, load_config
from coopmap.config.compose import to_yaml
from coopmap.runs.checkpoint_io import AtomicCheckpointIO
from coopmap.runs.folder import RunFolder, handed_over
from coopmap.runs.lock import held
from coopmap.runs.resume import differences, open_run


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(["machine=laptop", f"runs_root={tmp_path}"])


def test_a_script_that_lightning_starts_again_has_the_run_of_rank_0(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with handed_over(replace(config, resume="last.ckpt")):
        monkeypatch.setenv("LOCAL_RANK", "1")
        own = load_config(["machine=laptop", f"runs_root={tmp_path}"])
        assert own.run_dir != config.run_dir  # the name of a run is drawn
        assert open_run(own) == (
            replace(config, resume="last.ckpt"),
            RunFolder(Path(config.run_dir), Path("last.ckpt")),
        )
        monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
        assert open_run(own)[0].run_dir == own.run_dir  # what the script trains next was not handed over
        monkeypatch.undo()
    assert "COOPMAP_RUN_CONFIG" not in os.environ


def save(file: Path, config: Config, step: int = 1) -> None:
    """A checkpoint with a record alone."""
    AtomicCheckpointIO().save_checkpoint({"global_step": step, "coopmap": {"config": to_yaml(config)}}, file)


def make_run(config: Config, name: str, age: float = 0, **changes: object) -> RunFolder:
    run = RunFolder(Path(config.runs_root, config.experiment, name))
    run.record(replace(config, run_dir=str(run.path), **changes), [])
    save(run.last_checkpoint, run.read_config())
    os.utime(run.last_checkpoint, (time.time() - age,) * 2)
    return run


def test_record_says_what_ran(config: Config, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.record(config, ["seed=3"])
    run.record(config, [])
    starts = json.loads((run.path / "starts.json").read_text())
    assert [start["overrides"] for start in starts] == [["seed=3"], []]
    assert {"git_revision", "git_dirty", "command", "versions", "host", "time"} <= starts[0].keys()
    assert run.read_config() == config


def test_auto_takes_the_newest_unfinished_run_with_this_configuration(config: Config) -> None:
    make_run(config, "older", age=30)
    newest = make_run(config, "newest", age=20)
    other = make_run(config, "other_seed", age=10, seed=1)
    finished = make_run(config, "finished", age=0)
    finished.metrics_file.write_text("{}")
    settled, run = open_run(replace(config, resume="auto"))
    assert run.resume_from == newest.last_checkpoint
    assert (settled.run_dir, settled.resume) == (str(newest.path), str(newest.last_checkpoint))
    assert open_run(replace(config, resume="auto", seed=1))[1].path == other.path


def test_auto_continues_on_another_number_of_devices(config: Config) -> None:
    run = make_run(config, "run", age=0)
    fewer = replace(config, resume="auto", trainer=replace(config.trainer, devices=7))
    settled, found = open_run(fewer)
    assert (found.path, settled.trainer.devices) == (run.path, 7)
    assert open_run(replace(fewer, trainer=replace(fewer.trainer, precision="16-mixed")))[1].resume_from is None


def test_auto_starts_anew_when_there_is_nothing(config: Config) -> None:
    settled, run = open_run(replace(config, resume="auto"))
    assert run.resume_from is None
    assert settled.run_dir == config.run_dir


def test_auto_continues_in_a_given_folder(config: Config, tmp_path: Path) -> None:
    run_dir = tmp_path / "mine"
    config = replace(config, run_dir=str(run_dir), resume="auto")
    assert open_run(config, [f"run_dir={run_dir}"])[1].resume_from is None
    run = RunFolder(run_dir)
    run.record(config, [])
    save(run.last_checkpoint, config)
    assert open_run(config, [f"run_dir={run_dir}"])[1].resume_from == run.last_checkpoint


def test_run_folder_is_continued_with_its_own_configuration(config: Config) -> None:
    old = make_run(config, "old", seed=17)
    settled, run = open_run(
        replace(config, resume=str(old.path)), ["machine=laptop", f"resume={old.path}", "trainer.max_epochs=99"]
    )
    assert (settled.seed, settled.trainer.max_epochs) == (17, 99)
    assert (run.path, run.resume_from) == (old.path, old.last_checkpoint)


@pytest.mark.parametrize("name", ["latest", "newest", "cyl_posefix/newest"])
def test_latest_and_names_are_continued_like_folders(config: Config, name: str) -> None:
    make_run(config, "old", age=20)
    newest = make_run(config, "newest", age=10, seed=17)
    settled, run = open_run(replace(config, resume=name), [f"resume={name}", f"runs_root={config.runs_root}"])
    assert (settled.seed, run.path, run.resume_from) == (17, newest.path, newest.last_checkpoint)


def test_checkpoint_starts_a_new_run_from_there(config: Config) -> None:
    old = make_run(config, "old")
    _, run = open_run(replace(config, resume=str(old.last_checkpoint)))
    assert run.path == Path(config.run_dir)
    assert run.resume_from == old.last_checkpoint


def test_a_run_is_never_overwritten(config: Config) -> None:
    old = make_run(config, "old")
    old.last_checkpoint.rename(old.best_checkpoint)
    with pytest.raises(ConfigError, match="already holds a run; resume it with resume=auto"):
        open_run(replace(config, run_dir=str(old.path)))
    save(old.last_checkpoint, config)
    with pytest.raises(ConfigError, match="already holds a run; resume it with resume=auto"):
        open_run(replace(config, run_dir=str(old.path)))


@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_finished_run_without_checkpoints_is_not_overwritten_either(config: Config, resume: str | None) -> None:
    old = make_run(config, "old")
    shutil.rmtree(old.checkpoints)
    again = replace(config, run_dir=str(old.path), resume=resume)
    assert open_run(again, [f"run_dir={old.path}"])[1] == RunFolder(old.path)  # nothing is known of what it computed
    old.metrics_file.write_text("{}")
    with pytest.raises(ConfigError, match="a finished run, whose checkpoints are gone; choose another folder"):
        open_run(again, [f"run_dir={old.path}"])


def test_nothing_to_resume_is_named(config: Config, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty: there is no checkpoints/last\.ckpt"):
        open_run(replace(config, resume=str(tmp_path / "empty")))
    with pytest.raises(
        ConfigError, match=r"resume=newest: no such folder.*expected auto, latest, .* a run folder or a"
    ):
        open_run(replace(config, resume="newest"))


def test_differences_leave_volatile_keys_out(config: Config) -> None:
    changed = replace(config, optim=replace(config.optim, lr=3e-4), run_dir="/elsewhere", resume="auto")
    assert differences(config, changed) == [f"optim.lr: {config.optim.lr} -> 0.0003"]


def test_leftovers_of_a_killed_write_are_removed(config: Config) -> None:
    run = make_run(config, "run")
    (run.checkpoints / ".last.ckpt.123.tmp").write_bytes(b"half")
    with held(run.path):
        assert [path.name for path in run.checkpoints.iterdir()] == ["last.ckpt"]


def test_log_goes_to_the_run_folder(tmp_path: Path) -> None:
    from coopmap.runs.logs import log_to

    log_to(tmp_path / "train.log")
    logging.getLogger("coopmap.anything").info("hello")
    log_to(None)
    logging.getLogger("coopmap.anything").info("not in the file")
    assert (tmp_path / "train.log").read_text().split("  ")[1:] == ["hello\n"]


def test_log_is_held_back_until_it_is_released(tmp_path: Path) -> None:
    from coopmap.runs.logs import log_to, release_log

    for is_released in (False, True):
        log_to(tmp_path / "train.log", hold_back=True)
        logging.getLogger("coopmap.anything").info("hello")
        assert not (tmp_path / "train.log").exists()
        if is_released:
            release_log()
            logging.getLogger("coopmap.anything").info("there")
        log_to(None)
    assert (tmp_path / "train.log").read_text().count("\n") == 2
