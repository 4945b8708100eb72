"""One syntax for all commands, through the public entry."""

import errno
import signal
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from coopmap.cli import commands
from coopmap.cli.command import Command
from coopmap.cli.commands import COMMANDS, find_command
from coopmap.cli.main import main
from coopmap.config import Config, ConfigError, conf_dir
from coopmap.config.synth import TownConfig

RUNNABLE = ("train", "evaluate", "infer", "export", "compare", "bench", "synth")


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the functions of commands are called with, instead of their doing."""
    calls: list[Any] = []
    monkeypatch.setattr(Command, "load", lambda self: lambda *given: calls.append(given))
    return calls


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error.removeprefix("error: ").strip()


def test_every_function_and_schema_of_the_table_exists() -> None:
    for command in COMMANDS:
        assert callable(command.load())
        if command.places:
            assert command.places in command.schema.__dataclass_fields__


def test_the_console_script_is_the_same_program() -> None:
    (script,) = tomllib.loads((conf_dir().parent / "pyproject.toml").read_text())["project"]["scripts"].items()
    assert script == ("coopmap", f"{main.__module__}:{main.__name__}")


def test_values_mean_the_same_everywhere(called: list[Any]) -> None:
    main(["synth", "lidar={beams: 8, range_m: 50}", "scenarios.test=0", "workers=null", "root='a,b'"])
    main(["bench", "loss", "views=[2,3]", "loss=pose"])
    main(["evaluate", "run=1_0", "++refine=yes", "data.panorama.width=28", "task=posed", "+optim.lr_of.encoder=0"])
    (synth, views), (loss,), (evaluate, overrides) = called
    assert views == []
    assert isinstance(synth, TownConfig)
    assert (synth.lidar.beams, synth.lidar.range_m, synth.lidar.azimuth_steps) == (8, 50.0, 450)
    assert (synth.scenarios.test, synth.workers, synth.root) == (0, None, "a,b")
    assert (loss.views, loss.loss) == ([2, 3], ["pose"])
    assert (evaluate.run, evaluate.refine) == ("1_0", True)
    assert overrides == ["data.panorama.width=28", "task=posed", "+optim.lr_of.encoder=0"]


def test_every_job_of_a_sweep_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = []

    def task(config: Config, overrides: list[str]) -> None:
        if config.seed == 0:
            raise ConfigError("an unlucky seed")
        done.append(config.seed)

    monkeypatch.setattr(Command, "load", lambda self: task)
    monkeypatch.chdir(tmp_path)
    sweep = ["train", "-m", "machine=laptop", "model.heads.feature_dim=16,17", "seed=0,1"]
    with pytest.raises(SystemExit) as ended:
        main(sweep)
    assert (ended.value.code, done) == (2, [1])
    *failed, last = capsys.readouterr().err.splitlines()
    first, second, third = (
        "model.heads.feature_dim=16 seed=0",
        *(f"model.heads.feature_dim=17 seed={n}" for n in (0, 1)),
    )
    odd = "model.heads.feature_dim=17: expected an even number of channels"
    assert failed == [
        f"error in the job of {job}: {reason}"
        for job, reason in ((first, "an unlucky seed"), (second, odd), (third, odd))
    ]
    assert last == f"error: these jobs of the sweep failed, for the reasons above: {first}; {second}; {third}"


def test_a_job_of_a_sweep_that_fails_in_another_way_is_told_of_at_once_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = [RuntimeError("CUDA error"), OSError(errno.ENOSPC, "No space left on device", "/x"), OSError(5, "EIO")]
    said: list[str] = []

    def task(config: Config, overrides: list[str]) -> None:
        said.append(capsys.readouterr().err)
        if config.seed < len(errors):
            raise errors[config.seed]

    monkeypatch.setattr(Command, "load", lambda self: task)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["train", "-m", "machine=laptop", "seed=0,1,2,3"])
    assert ended.value.code == 2
    nothing, first, second, third = said
    assert nothing == ""
    assert first.startswith("Traceback ")
    assert first.endswith("\nerror in the job of seed=0: RuntimeError: CUDA error\n")
    assert second == "error in the job of seed=1: no space left on / for /x; files that were complete stay\n"
    assert third.startswith("Traceback ")
    assert third.endswith("\nerror in the job of seed=2: OSError: [Errno 5] EIO\n")
    last = "error: these jobs of the sweep failed, for the reasons above: seed=0; seed=1; seed=2\n"
    assert capsys.readouterr().err == last


def test_a_stop_signal_ends_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def task(config: Config, overrides: list[str]) -> None:
        begun.append(config.seed)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Command, "load", lambda self: task)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["train", "-m", "machine=laptop", "seed=0,1"])
    assert (ended.value.code, begun) == (143, [0])


@pytest.mark.parametrize("error", [ConfigError("an unlucky seed"), RuntimeError("connection closed by peer")])
def test_a_rank_that_fails_in_a_sweep_does_not_go_on_to_a_job_in_which_the_others_are_not(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = []

    def task(config: Config, overrides: list[str]) -> None:
        begun.append(config.seed)
        raise error

    monkeypatch.setattr(Command, "load", lambda self: task)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.chdir(tmp_path)
    with pytest.raises((SystemExit, RuntimeError)) as ended:
        main(["train", "-m", "machine=laptop", "seed=0,1"])
    assert begun == [0]
    if isinstance(error, ConfigError):
        assert isinstance(ended.value, SystemExit)
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: in the job of seed=0: an unlucky seed; the sweep ends here")
    else:
        assert ended.value is error


def test_a_sweep_whose_jobs_would_share_a_folder_or_differ_unasked_is_refused(
    called: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails(["train", "-m", "seed=0,1", "run_dir=x/y"], capsys).startswith(
        "run_dir=x/y: all jobs of a sweep would"
    )
    models = "model=mapanything_v1,mapanything_v11"
    assert fails(["train", "-m", models], capsys).endswith("comes with loss=v11; say loss= for the sweep")
    assert called == []


def test_train_gets_the_composed_configuration(called: list[Any]) -> None:
    given = ["machine=laptop", "seed=7", "data.root=/x"]
    main(["train", *given])
    ((config, overrides),) = called
    assert (config.seed, config.data.root, config.data.town) == (7, "/x", None)
    assert [override for override in overrides if override in given] == given  # beside what was settled by looking


@pytest.mark.parametrize(
    ("argument", "runs"),
    [
        ("runs=a", ["a"]),
        ("runs=1_0,2", ["1_0", "2"]),
        ("runs=[a,b]", ["a", "b"]),
        ("runs='a,b'", ["a,b"]),
        ("runs=c,'a,b'", ["c", "a,b"]),
    ],
)
def test_lists_of_text_are_written_with_or_without_brackets(argument: str, runs: list[str], called: list[Any]) -> None:
    main(["compare", argument])
    assert called[0][0].runs == runs


@pytest.mark.parametrize("name", ["a=b", "a#b & c", "[x] (y)", "réseau", "it's"])
def test_paths_that_exist_are_taken_literally(
    name: str, called: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    main(["compare", name, str(tmp_path / name), f"output={name}"])
    main(["evaluate", f"run={tmp_path / name}", f"data.root={name}"])
    main(["train", "machine=laptop", f"data.root={tmp_path / name}"])
    (compare,), (evaluate, overrides), (config, _) = called
    assert compare.runs == [name, str(tmp_path / name)]
    assert compare.output == name
    assert evaluate.run == str(tmp_path / name)
    assert config.data.root == str(tmp_path / name)
    assert len(overrides) == 1


def test_the_home_folder_stands_for_its_sign_in_every_command(
    called: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "jo"
    monkeypatch.setenv("HOME", str(home))
    main(["synth", "root=~/x", "depth_root='~/y z'"])
    main(["evaluate", "run=~/r", "output=~/x", "data.root=~/opv2v"])
    main(["infer", "checkpoint=~/r.ckpt", "images=~", "output=~/x"])
    main(["compare", "~/runs", "runs=[~/a,'~/b']"])
    main(["dashboard", "runs=~/a,~/b", "runs_root=~"])
    main(["train", "machine=laptop", "data.root=~/opv2v", "data.exclude=~/bad.txt"])
    (synth, _), (evaluate, overrides), (infer, _), (compare,), (dashboard,), (config, _) = called
    assert (synth.root, synth.depth_root) == (f"{home}/x", f"{home}/y z")
    assert (evaluate.run, evaluate.output, overrides) == (f"{home}/r", f"{home}/x", [f"data.root={home}/opv2v"])
    assert (infer.checkpoint, infer.images, infer.output) == (f"{home}/r.ckpt", str(home), f"{home}/x")
    assert compare.runs == [f"{home}/runs", f"{home}/a", f"{home}/b"]
    assert (dashboard.runs, dashboard.runs_root) == ([f"{home}/a", f"{home}/b"], str(home))
    assert (config.data.root, config.data.exclude) == (f"{home}/opv2v", f"{home}/bad.txt")


@pytest.mark.parametrize(
    "command",
    [
        "evaluate run=a output",
        "infer run=a images=b output",
        "render run=a output",
        "preview data.root=b output",
        "check data.root=b output",
        "compare a output",
        "dashboard a output",
        "export run=a output",
        "bench priors a output",
        "cache data.root=b cache_root",
    ],
)
def test_a_file_where_a_folder_is_needed_is_found_before_the_work(
    command: str, called: list[Any], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    *words, key = command.split()
    message = f"{tmp_path}/file is a file; expected a folder, or a name for a new one"
    for place in (f"{tmp_path}/file", f"{tmp_path}/file/below/it"):
        assert fails([*words, f"{key}={place}"], capsys) == f"{key}={place}: {message}"
    assert "dangling is a file" in fails([*words, f"{key}={tmp_path}/dangling"], capsys)
    monkeypatch.setattr("os.access", lambda place, mode: False)
    message = f"{key}={tmp_path}/new/er: {tmp_path} cannot be written to; choose another folder"
    assert fails([*words, f"{key}={tmp_path}/new/er"], capsys) == message
    assert called == []
    monkeypatch.undo()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["plan output", "bench loss output", "check data.root=b fix_list"])
def test_a_folder_where_a_file_is_needed_is_found_before_the_work(
    command: str, called: list[Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "x.json").mkdir()
    *words, key = command.split()
    place = f"{key}={tmp_path}/x.json"
    assert fails([*words, place], capsys) == f"{place}: is a folder; expected a file"
    (tmp_path / "file").touch()
    assert "file is a file; expected a folder" in fails([*words, f"{key}={tmp_path}/file/x.json"], capsys)
    assert called == []


def test_places_that_turn_out_to_be_of_no_use_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(Command, "load", lambda self: lambda *given: (tmp_path / "file" / "x").mkdir())
    message = f"{tmp_path}/file/x: Not a directory; choose another place, or change what is there"
    assert fails(["compare", "a"], capsys) == message


@pytest.mark.parametrize("command", ["synth root", "export run=a output", "train data.root"])
def test_what_cannot_be_read_is_shown_quoted_so_that_it_can(
    command: str, called: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    *words, key = command.split()
    message = fails([*words, f"{key}=x,#y=z"], capsys)
    line = " ".join([*words, f"\"{key}='x,#y=z'\""])
    assert message == f"cannot read '{key}=x,#y=z'; this is read: coopmap {line}"
    main([*words, f"{key}='x,#y=z'"])
    assert len(called) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trian", "coopmap trian: no such command; did you mean train?"),
        ("bench modle", "coopmap bench modle: no such command; did you mean model?"),
        ("synth lidar.beam=3", "lidar.beam: no such key. Did you mean lidar.beams?"),
        ("synth seed=many", "seed: Value 'many' of type 'str' could not be converted to Integer"),
        ("synth frames=0", "frames=0: expected 1 or more"),
        ("synth +seed=3", "+seed=3: there is a seed already; leave the + out"),
        ("synth ~seed", "~seed: seed cannot be removed, only changed"),
        ("synth somewhere", "somewhere: expected key=value"),
        ("synth --cfg job", "--cfg: no flag of coopmap synth, which has --help only; everything else is key=value"),
        ("export run=a outputs=b", "outputs: no such key. Did you mean output?"),
        ("bench model model=v2", "model=v2: expected one of tiny, v1, v11"),
        ("bench fusion data.rooot=/x", "data.rooot: no such key. Did you mean data.root?"),
        (
            "infer run=a images=b output=c data.panorama.widht=3",
            "data.panorama.widht: no such key. Did you mean data.panorama.width?",
        ),
        ("train ~data.root", "~data.root: data.root cannot be removed, only changed"),
        ("train ~seed", "~seed: seed cannot be removed, only changed"),
        (
            "train loss.weights=1",
            "loss.weights: stands for several keys, such as loss.weights.pts3d; set one of these",
        ),
        ("synth lidar=3", "lidar: stands for several keys, such as lidar.beams; set one of these"),
        ("train optim.lrr=3", "optim.lrr: no such key. Did you mean optim.lr?"),
        (
            "train data=twon",
            "data=twon: no such choice; there are ablation_densified, four_camera, market, mosaic, panorama, streets, "
            "town. Did you mean data=town?",
        ),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    arguments: str, message: str, called: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails(arguments.split(), capsys) == message
    assert called == []


@pytest.mark.parametrize("arguments", ["train seed=0,1", "evaluate run=a data.root=a,b", "synth seed=1,2"])
def test_several_values_are_for_sweeps(arguments: str, called: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert "several values are for sweeps (coopmap train -m)" in fails(arguments.split(), capsys)


@pytest.mark.parametrize("name", ["evaluate", "infer", "export", "compare", "bench priors"])
def test_commands_that_need_something_show_their_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(name.split())
    assert ended.value.code == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith(f"usage: coopmap {name} ")
    assert f"coopmap help {name} explains it." in written.err


def test_a_new_command_is_an_entry_of_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new = Command("look", "look before training", "builtins:print", "coopmap.config.synth:LidarConfig")
    monkeypatch.setattr(commands, "COMMANDS", (*COMMANDS, new))
    assert find_command(["look"]) == (new, 1)
    main(["help", "look"])
    assert "lowest beam" in capsys.readouterr().out
    main(["look", "beams=4"])
    assert "LidarConfig(beams=4" in capsys.readouterr().out


def test_tracebacks_are_shown_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(Exception, match="could not be converted to Integer"):
        main(["synth", "seed=many"])


@pytest.mark.parametrize("name", RUNNABLE)
def test_modules_are_commands_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", f"coopmap.{name}", "--help"]
    module = subprocess.run(command, capture_output=True, text=True, timeout=60)
    with suppress(SystemExit):  # a table of benchmarks ends the program
        main([name, "--help"])
    assert (module.returncode, module.stderr) == (0, "")
    assert module.stdout == capsys.readouterr().out
    assert f"usage: coopmap {name} " in module.stdout


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "coopmap", "train", "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: coopmap train " in done.stdout


def test_version_and_table_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out.startswith("coopmap ")
    main([])
    table = capsys.readouterr().out
    assert [name for name in RUNNABLE if f"\n  {name} " not in table] == []
