"""Commands of the study's results can be run: what they call exists, and options and values are accepted."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from coopmap import load_config
from coopmap.cli.arguments import options_of, read
from coopmap.cli.commands import find_command

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "experiments" / "results" / "converge"
STUBS = """
set -eu
record() { printf "%q " "$@" >> "$CALLS"; echo >> "$CALLS"; }
coopmap() { record coopmap "$@"; }
python() { record python "$@"; }
"""
"""In place of the programs; what is called is written down as the shell understands it."""
PLACES = {"init_from", "model.weights"}
"""Of runs that are not there."""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """Every call of every block of the pages, arguments as the programs get them."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    log = tmp_path_factory.mktemp("results") / "calls"
    text = "\n".join(page.read_text(encoding="utf-8") for page in sorted(RESULTS.glob("*.md")))
    for block in re.findall(r"(?:^ {4,}\S.*\n)+", text, re.MULTILINE):
        lines = [line for line in block.splitlines() if not line.strip().startswith("experiments/")]
        script = STUBS + "\n".join(lines)
        subprocess.run(["bash", "-c", script], cwd=REPOSITORY, env={**os.environ, "CALLS": str(log)}, check=True)
    return [shlex.split(line) for line in log.read_text().splitlines()]


def test_scripts_exist(calls: list[list[str]]) -> None:
    scripts = {call[1] for call in calls if call[0] == "python"}
    assert len(scripts) >= 5
    for script in scripts:
        assert (REPOSITORY / script).is_file(), script


def test_nothing_is_left_to_guess(calls: list[list[str]]) -> None:
    assert not [call for call in calls if "..." in call]


def test_options_and_values_are_accepted(calls: list[list[str]]) -> None:
    seen = set()
    for _, name, *words in (call for call in calls if call[0] == "coopmap"):
        command, _ = find_command([name])
        assert command is not None, name
        seen.add(name)
        found = read(command, words)
        if command.schema is not None and not found.places:
            options_of(command, found)
        if command.takes_config:
            load_config(
                [text.replace("seed=N", "seed=1") for text in found.overrides if text.split("=")[0] not in PLACES]
            )
    assert seen == {"train", "evaluate", "synth"}
