"""Run folders damaged in different ways: resumed with a line that says from what, or refused with one that says why."""

import json
import os
import random
import re
import resource
import shutil
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from coopmap.config import Config, ConfigError, load_config
from coopmap.config.compose import to_yaml
from coopmap.runs.checkpoint_io import AtomicCheckpointIO
from coopmap.runs.folder import RunFolder
from coopmap.runs.metrics_file import read_metrics
from coopmap.runs.reader import read_run
from coopmap.runs.resume import newest_whole_checkpoint, open_run


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(["machine=laptop", f"runs_root={tmp_path}"])


@pytest.fixture
def run(config: Config) -> RunFolder:
    """A run with a last checkpoint of step 7 and a best one of step 5."""
    run = RunFolder(Path(config.runs_root, config.experiment, "run"))
    config = replace(config, run_dir=str(run.path))
    run.record(config, [])
    for file, step in ((run.best_checkpoint, 5), (run.last_checkpoint, 7)):
        record = {"config": to_yaml(config)}
        AtomicCheckpointIO().save_checkpoint({"global_step": step, "coopmap": record}, file)
    (run.path / "metrics.csv").write_text("step,val/loss\n5,1.0\n")
    return run


def cut(file: Path, share: float = 0.5) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 4
    file.write_bytes(content)


def become_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def become_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def become_a_loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def foreign(file: Path) -> None:
    AtomicCheckpointIO().save_checkpoint({"model": {}}, file)


def alias_bomb(file: Path) -> None:
    levels = "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(20))
    file.write_text("a0: &a0 x\n" + levels)


def cut_at_a_line(file: Path) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[: len(lines) // 2]))


def nested(file: Path) -> None:
    file.write_text("a: " + "[" * 100_000)


def binary(file: Path) -> None:
    file.write_bytes(bytes(range(256)))


def a_list(file: Path) -> None:
    file.write_text("[1, 2]")


def both(damage: Callable[[Path], None]) -> Callable[[RunFolder], None]:
    return lambda run: (damage(run.last_checkpoint), damage(run.best_checkpoint))[0]


def last(damage: Callable[[Path], None]) -> Callable[[RunFolder], None]:
    return lambda run: damage(run.last_checkpoint)


def stored(damage: Callable[[Path], None]) -> Callable[[RunFolder], None]:
    return lambda run: damage(run.config_file)


RESUMED = [  # what happened, checkpoint that is taken, what is said
    ("last empty", last(empty), "best", r"last\.ckpt: .* is empty; continuing from best\.ckpt, step 5"),
    ("last cut", last(cut), "best", r"last\.ckpt: .*\(cut off\?\); continuing from best"),
    ("last altered", last(flip), "best", r"last\.ckpt: .* was altered after it was written"),
    ("last missing", last(Path.unlink), "best", r"last\.ckpt: there is no such checkpoint; continuing from best"),
    ("last a folder", last(become_a_folder), "best", r"last\.ckpt: "),
    ("last a pipe", last(become_a_pipe), "best", r"last\.ckpt: "),
    ("last a link to itself", last(become_a_loop), "best", r"last\.ckpt: "),
    ("last foreign", last(foreign), "best", r"last\.ckpt: not a checkpoint of a coopmap run"),
    ("best altered", lambda run: flip(run.best_checkpoint), "last", None),
    ("config empty", stored(empty), "last", r"config\.yaml: .*is empty.*taken from last\.ckpt"),
    ("config missing", stored(Path.unlink), "last", r"no config\.yaml; the configuration is taken from last\.ckpt"),
    ("config cut", stored(cut_at_a_line), "last", r"config\.yaml: cut off, \d+ keys are missing"),
    ("config not text", stored(binary), "last", r"config\.yaml: cannot be read"),
    ("config no mapping", stored(a_list), "last", r"config\.yaml: .*no mapping of keys"),
    ("config an alias bomb", stored(alias_bomb), "last", r"config\.yaml: .*holds an alias"),
    ("config nested", stored(nested), "last", r"config\.yaml: "),
    ("config a folder", stored(become_a_folder), "last", r"config\.yaml"),
    ("starts cut", lambda run: cut(run.starts_file), "last", None),
]
REFUSED = [
    ("both empty", both(empty), r"last\.ckpt: .* is empty; .*best\.ckpt: .* is empty"),
    ("both altered", both(flip), r"last\.ckpt: .* was altered .*best\.ckpt: .* was altered"),
    ("no checkpoint", both(Path.unlink), r"there is no checkpoints/last\.ckpt"),
]


@pytest.mark.parametrize(("damage", "taken", "said"), [row[1:] for row in RESUMED], ids=[row[0] for row in RESUMED])
def test_what_can_be_resumed_is_with_a_line(
    damage: Callable[[RunFolder], None],
    taken: str,
    said: str | None,
    run: RunFolder,
    config: Config,
    caplog: pytest.LogCaptureFixture,
) -> None:
    damage(run)
    for resume in (str(run.path), "auto"):
        caplog.clear()
        settled, found = open_run(replace(config, resume=resume), [f"resume={resume}"])
        assert found.resume_from == run.checkpoints / f"{taken}.ckpt"
        assert settled.optim == config.optim
        if said is not None:
            assert caplog.text.count("WARNING") >= 1
            assert re.search(said, caplog.text)


@pytest.mark.parametrize(("damage", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_cannot_is_refused_and_no_obstacle_for_others(
    damage: Callable[[RunFolder], None], said: str, run: RunFolder, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(run.path, run.path.with_name("older"))
    for file in (run.path.with_name("older") / "checkpoints").iterdir():
        os.utime(file, (time.time() - 1000,) * 2)
    damage(run)
    before = sorted((path, path.stat().st_mtime_ns) for path in run.path.rglob("*"))
    with pytest.raises(ConfigError, match=said):
        open_run(replace(config, resume=str(run.path)), [f"resume={run.path}"])
    _, found = open_run(replace(config, resume="auto"), ["resume=auto"])
    assert found.path == run.path.with_name("older")
    if list(run.checkpoints.iterdir()):
        assert f"passing over {run.path}: " in caplog.text
    assert sorted((path, path.stat().st_mtime_ns) for path in run.path.rglob("*")) == before


def test_an_old_neighbor_is_passed_over_by_name(
    run: RunFolder, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    run.config_file.write_text(run.config_file.read_text() + "retired_key: 1\n")
    _, found = open_run(replace(config, resume="auto"), ["resume=auto"])
    assert found.resume_from is None
    assert f"passing over {run.path}: " in caplog.text
    assert "retired_key" in caplog.text


def test_damaged_records_are_kept_and_begun_anew(
    run: RunFolder, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    for text in ("", '[{"time": ', "{}", "[1]"):
        run.starts_file.write_text(text)
        run.record(config, [])
        assert len(json.loads(run.starts_file.read_text())) == 1
        assert (run.path / "starts.damaged.json").read_text() == text
    assert "starts.json: empty, cut off or damaged" in caplog.text


@pytest.mark.parametrize(
    ("name", "text"), [("starts.json", ""), ("config.yaml", ""), ("metrics.csv", "step,a\nx,1\n"), ("model.json", "{")]
)
def test_readers_of_runs_name_the_damaged_file(run: RunFolder, name: str, text: str) -> None:
    read_run(run.path)
    (run.path / name).write_text(text)
    with pytest.raises(ConfigError, match=f"cannot be read as a run: .*{name}: "):
        read_run(run.path)


@pytest.mark.parametrize("end", ["12,0.5,3e-", "12,0.5,-", "12,0.5," + 9 * "\0", 20 * "\0", "12,0.5,1,1"])
def test_a_last_line_that_was_cut_off_costs_itself_alone(
    end: str, run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    file, table = run.path / "metrics.csv", "step,val/loss,a\r\n5,1.0,0.5\r\n"
    file.write_text(table + end, newline="")
    assert read_metrics(file) == [{"step": 5, "val/loss": 1.0, "a": 0.5}]
    assert "metrics.csv: the last line is cut off and left out" in caplog.text
    file.write_text(f"{table}{end}\r\n", newline="")  # whole: whatever wrote it, it was not cut off
    with pytest.raises(ConfigError, match=r"metrics\.csv: not a table of metrics"):
        read_metrics(file)
    file.write_text(f"step,val/loss,a\r\nx,1.0,0.5\r\n{end}", newline="")
    with pytest.raises(ConfigError, match=r"metrics\.csv: not a table of metrics"):
        read_metrics(file)


def become_terabytes(file: Path) -> None:
    file.write_bytes(b"")
    os.truncate(file, 10**12)  # sparse


ODDITIES = (become_a_pipe, become_a_folder, become_a_loop, become_terabytes, nested, binary)


@pytest.mark.parametrize(
    ("name", "damage"),
    [(name, damage) for name in ("config.yaml", "starts.json", "model.json") for damage in ODDITIES]
    + [("metrics.csv", damage) for damage in ODDITIES if damage is not nested],  # text is the head of a table
)
def test_what_a_foreign_run_folder_may_hold_is_named_at_once(
    run: RunFolder, name: str, damage: Callable[[Path], None]
) -> None:
    (run.path / "model.json").write_text("{}")
    read_run(run.path)
    damage(run.path / name)
    began = time.process_time()
    tracemalloc.start()
    with pytest.raises(ConfigError, match=f"cannot be read as a run: .*{name}: "):
        read_run(run.path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert time.process_time() - began < 1


@pytest.mark.parametrize("text", ["model.weights=facebook/map-anything", "model.weights=a.ckpt"])
def test_a_change_that_would_not_be_made_is_refused(run: RunFolder, config: Config, text: str, tmp_path: Path) -> None:
    for resume in (run.path, run.last_checkpoint):
        with pytest.raises(ConfigError, match=f"{text}: a run that resumes takes its weights from its checkpoint"):
            open_run(replace(config, resume=str(resume)), [f"resume={resume}", text])
    changed = replace(config, resume=str(run.path), run_dir=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match="a run continues in its own folder; copy the folder, or"):
        open_run(changed, [f"resume={run.path}", f"run_dir={tmp_path / 'other'}"])


def mutated(content: bytes, generator: random.Random) -> bytes:
    """A few bytes changed, a part cut out, doubled or cut off."""
    data = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 8))):
        kind, place = generator.randrange(5), generator.randrange(max(1, len(data)))
        length = generator.choice((1, 4, 64, len(data) // 3))
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << generator.randrange(8)
        elif kind == 1:
            data[place : place + length] = generator.randbytes(min(length, 64))
        elif kind == 2:
            del data[place : place + length]
        elif kind == 3:
            data[place:place] = data[place : place + length]
        else:
            del data[place:]
    return bytes(data)


@dataclass
class Cost:
    """Of readings: the longest (s of this process: others may keep it waiting) and the most memory (bytes)."""

    longest: float = 0.0
    largest: int = 0
    before: int = field(default_factory=lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    @contextmanager
    def measured(self, with_memory: bool) -> Iterator[None]:
        if with_memory:
            tracemalloc.start()
        began = time.process_time()
        yield
        if not with_memory:
            self.longest = max(self.longest, time.process_time() - began)
        else:
            self.largest = max(self.largest, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()

    @property
    def grown(self) -> int:
        """What the process has grown by since, bytes: torch's own memory too."""
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.before) * 1024

    def __str__(self) -> str:
        return f"longest {self.longest:.2f} s, largest {self.largest / 1e6:.0f} MB, grown {self.grown / 1e6:.0f} MB"

    def check(self) -> None:
        assert self.longest < 1
        assert self.largest < 500e6
        assert self.grown < 500e6


@pytest.mark.parametrize("count", [20, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(14_400)])])
def test_mutated_run_folders_are_resumed_or_refused_by_name(
    count: int, run: RunFolder, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    generator = random.Random(0)
    files = [run.config_file, run.path / "metrics.csv", run.starts_file, run.last_checkpoint]
    contents = {file: file.read_bytes() for file in files}
    messages, cost = list[str](), Cost()

    def resume() -> None:
        open_run(replace(config, resume=str(run.path)), [])

    def choose() -> None:
        newest_whole_checkpoint(run)

    def read_rest() -> None:
        read_metrics(run.path / "metrics.csv")

    def read_all() -> None:
        read_run(run.path)

    for number in range(count):
        file = files[number % 4]
        file.write_bytes(mutated(contents[file], generator))
        for read in ((resume, read_rest, run.read_starts, choose)[number % 4], read_all):
            with cost.measured(with_memory=number % 10 == 0):
                try:
                    read()
                except ConfigError as error:
                    messages.append(str(error))
        file.write_bytes(contents[file])
        caplog.clear()
        if number % 500 == 499:
            print(f"{number + 1} mutated run folders: {len(messages)} refusals, {cost}", flush=True)
    assert len(messages) > count / 10
    assert all(str(run.path) in message for message in messages)
    cost.check()


@pytest.mark.parametrize("count", [25, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
@pytest.mark.parametrize("kind", ["ours", "torch", "safetensors"])
def test_mutated_checkpoints_are_read_or_refused(kind: str, count: int, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from coopmap.models.sources import read_weights
    from coopmap.runs.stored import open_checkpoint

    generator = random.Random(kind)
    file = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.ckpt")
    tensors = {f"encoder.model.blocks.{i}.weight": torch.randn(4, 4) for i in range(8)}
    content = {"global_step": 3, "coopmap": {"config": "a: 1", "weights": None}, "state_dict": tensors}
    if kind == "safetensors":
        save_file(tensors, file)
    elif kind == "torch":
        torch.save(content, file)
    else:
        AtomicCheckpointIO().save_checkpoint(content, file)
    original = file.read_bytes()
    messages, cost = list[str](), Cost()
    for number in range(count):
        file.unlink()  # earlier readers have mapped it
        file.write_bytes(mutated(original, generator))
        with cost.measured(with_memory=number % 10 == 0):
            try:
                if kind == "ours":
                    open_checkpoint(file)
                else:
                    read_weights(file)
            except ValueError as error:  # ConfigErrors and WeightsMismatchErrors are
                messages.append(str(error))
    print(f"{count} {kind}: {len(messages)} refused, {cost}")
    assert len(messages) > count * 0.3
    assert all(file.name in message for message in messages)
    cost.check()
