"""Commands of the guides exist and can be composed, and both languages have the same ones."""

import re
import shlex
from pathlib import Path

import pytest

from coopmap import load_config
from coopmap.cli.arguments import options_of, read
from coopmap.cli.commands import find_command
from coopmap.training.start import check_start

DOCS = Path(__file__).parents[1] / "docs"
GUIDES = ("ten_gpus", "docker", "preflight")
"""Their commands are composed; of other pages, which show variants and parts, names and keys have to be right."""
OTHER_PAGES = sorted(path.name for path in DOCS.glob("*.md") if path.stem not in GUIDES)
OTHER_PROGRAMS = {
    "#!/bin/bash", "#SBATCH", "[", "apptainer", "cat", "cd", "df", "docker", "export", "make", "source", "tmux",
    "unzip",
}  # fmt: skip
CALL = re.compile(r"(?:^|\s)(?:-m coopmap\.|coopmap(?:\.sif)? )([a-z]+(?: .*)?)$")


def code_lines(text: str) -> list[str]:
    """Lines of code blocks, whole; what continues an item of a list is indented by less."""
    lines = re.findall(r"^ {4,}(\S.*)$", text.replace("\\\n", " "), re.MULTILINE)
    return [re.sub(r"  +", " ", line) for line in lines]


def inline_commands(text: str) -> list[str]:
    """Commands within sentences."""
    return re.findall(r"`(coopmap [a-z][^`]* [^`]+)`", text.replace("\n", " "))


def commands(name: str) -> list[str]:
    text = (DOCS / name).read_text(encoding="utf-8")
    return [*code_lines(text), *inline_commands(text)]


@pytest.mark.parametrize("line", [line for name in GUIDES for line in commands(f"{name}.md")])
def test_command_of_a_guide_can_be_composed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And trains nothing large from random weights; docker's guide says in the environment what to start from."""
    monkeypatch.setattr("coopmap.training.start.check_gpus", lambda *_: None)
    if line.startswith("docker "):
        monkeypatch.setenv("COOPMAP_WEIGHTS", "weights")
    call = CALL.search(line)
    if call is None:
        assert line.split()[0] in OTHER_PROGRAMS
        return
    words = shlex.split(call[1])
    command, length = find_command(words)
    assert command is not None, f"{words[0]}: no such command"
    found = read(command, words[length:])
    if command.schema is not None and not found.places:  # places have to be there
        options_of(command, found)
    if command.takes_config:
        config = load_config(found.overrides)
        if command.name in ("train", "preflight"):
            config.resume = None if config.resume == "auto" else config.resume  # as at first
            check_start(config, found.overrides)


def typed(text: str, line: str) -> list[str]:
    """Words of the call in a line of a page as one types them, optional ones included; none if there is no call."""
    for assigned in code_lines(text):
        if found := re.fullmatch(r'(\w+)="(.*)"', assigned):
            line = line.replace(f"${found[1]}", found[2])
    line = re.sub(r"(?<=\s)\[([^\[\]]*=[^\[\]]*)\]", r"\1", re.sub(r" (#|\|\|).*", "", line))
    call = None if line.startswith("from ") else CALL.search(line)
    return [] if call is None else [word for word in shlex.split(call[1]) if word != "--help"]


@pytest.mark.parametrize("name", OTHER_PAGES)
def test_commands_and_keys_of_a_page_exist(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    for line in code_lines(text):
        if words := typed(text, line):
            command, length = find_command(words)
            assert command is not None, f"{words[0]}: no such command"
            found = read(command, words[length:])
            if command.schema is not None and not found.places:
                options_of(command, found)
    for line in inline_commands(text):  # what a sentence leaves out may be required
        words = typed(text, line)
        command, length = find_command(words)
        assert command is not None, f"{words[0]}: no such command"
        read(command, words[length:])


@pytest.mark.parametrize("name", ["docs/ten_gpus.md", "docs/zh/ten_gpus.md", "experiments/launch/slurm.sbatch"])
def test_tasks_of_a_slurm_job_get_the_cores_that_it_asks_for(name: str) -> None:
    """``srun`` does not take them over from ``sbatch``: each task would have one core for all its loader processes."""
    text = (DOCS.parent / name).read_text(encoding="utf-8")
    assert re.search(r"^ *#SBATCH .*--cpus-per-task=\d+", text, re.MULTILINE)
    calls = re.findall(r"^ *srun .*$", text, re.MULTILINE)
    assert calls
    assert all(re.search(r"--cpus-per-task=\S*SLURM_CPUS_PER_TASK", call) for call in calls)


def test_guides_name_files_that_are_there() -> None:
    for path in [*DOCS.glob("*.md"), *DOCS.glob("zh/*.md"), *DOCS.parent.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_normalized_errors_of_the_guide_are_those_of_the_loss() -> None:
    """The general robust loss (Barron 2019) with alpha 0.5 and c 0.05, three times."""
    text = (DOCS / "ten_gpus.md").read_text(encoding="utf-8")
    rows = {
        name: [float(cell) for cell in cells.split("|") if cell.strip()]
        for name, cells in re.findall(
            r"^\| (`pose_trans_avg`|error,[^|]*|meters[^|]*) \|((?: [\d.]+ \|)+)$", text, re.M
        )
    }
    values, errors, meters = rows.values()
    for value, error, distance in zip(values, errors, meters, strict=True):
        exact = 0.05 * (1.5 * ((value / 9 + 1) ** 4 - 1)) ** 0.5
        assert error == pytest.approx(exact, abs=0.005)
        assert distance == pytest.approx(20 * exact, abs=0.05)


@pytest.mark.parametrize("name", [path.name for path in DOCS.glob("zh/*.md") if path.name != "README.md"])
def test_both_languages_have_the_same_commands(name: str) -> None:
    assert commands(f"zh/{name}") == commands(name)


def test_chinese_readme_has_commands_of_the_readme() -> None:
    own = code_lines((DOCS / "zh/README.md").read_text(encoding="utf-8"))
    original = code_lines((DOCS.parent / "README.md").read_text(encoding="utf-8"))
    assert own
    assert set(own) <= set(original)
