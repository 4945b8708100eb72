"""A stand-in for Python, which the study's scripts call."""

import sys
from pathlib import Path

RECORDS = """#!/bin/bash
case "$1" in *.py) exec "$REAL_PYTHON" "$@";; esac
printf '%s\\n' "$*" >> "$CALLS"
for word in "$@"; do
    [[ "$3 $word" =~ ^evaluate\\ output=(.*) && -n "$ANSWERS" ]] || continue
    mkdir -p "${BASH_REMATCH[1]}"
    touch "${BASH_REMATCH[1]}/summary.json"
done
[[ "$3" == synth ]] || exit 0
for word in "$@"; do
    [[ "$word" =~ ^(depth_)?root=(.*) ]] || continue
    for street in train/a train/b validate/c test/d; do
        [[ "$street $*" == "test/d "*scenarios.test=0* ]] && continue
        mkdir -p "${BASH_REMATCH[2]}/$street"
        style=$([[ "$street" == train/b ]] && echo grid || echo suburb)
        echo "style: $style" > "${BASH_REMATCH[2]}/$street/data_protocol.yaml"
    done
    touch "${BASH_REMATCH[2]}/town.yaml"
done
"""


def put_stand_in(folder: Path, answers: bool = False) -> dict[str, str]:
    """A program in ``folder`` that writes down what it is called with, and the environment in which scripts call it.

    It renders four empty streets, runs scripts as they are and, if it ``answers``, leaves empty summaries.
    """
    program = folder / "python"
    program.write_text(RECORDS)
    program.chmod(0o755)
    return {
        "PYTHON": str(program),
        "REAL_PYTHON": sys.executable,
        "CALLS": str(folder / "calls"),
        "ANSWERS": "1" if answers else "",
    }
