import sys

import pytest

from coopmap.cli.arguments import options_of, read
from coopmap.cli.commands import find_command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run=/nowhere"], "run=/nowhere: no such folder, and no run of that name below runs"),
        (["checkpoint=/nowhere.ckpt"], "/nowhere.ckpt: there is no such checkpoint"),
        (["rn=/nowhere"], "rn: no such key. Did you mean run?"),
        (["split=val"], "give one of run=RUN, checkpoint=FILE and weights=HUB_ID|FILE|FOLDER"),
        (
            ["run="],
            "run=: is empty, as where a variable of the shell is not set; give latest, a run's name or its folder",
        ),
        (
            ["checkpoint="],
            "checkpoint=: is empty, as where a variable of the shell is not set; give the checkpoint file of a run",
        ),
        (["weights="], "weights=: expected a hub id, a file or a folder, not an empty text"),
        (["run=a", "seed"], "seed: expected key=value"),
        (["run=a", "refine=maybe"], "refine: Value 'maybe' is not a valid bool (type str)"),
        (["run=a", "refin=true"], "refin: no such key. Did you mean refine?"),
        (["run=a", "frames=b", "split=val"], "split=val and frames=b: give only one of them"),
        (["run=a", "data.rot=/x"], "data.rot: no such key. Did you mean data.root?"),
        (["run=a", "-m"], "-m: no flag of coopmap evaluate, which has --help only; everything else is key=value"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], message: str, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from coopmap import evaluate as program

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_own_keys_and_overrides_are_told_apart() -> None:
    command, _ = find_command(["evaluate"])
    assert command is not None
    found = read(command, ["run=a", "refine=true", "baselines=[gps,icp]", "data.root=/x", "task=posed", "seed=3"])
    asked = options_of(command, found)
    assert (asked.run, asked.refine, asked.split) == ("a", True, None)
    assert asked.baselines == ["gps", "icp"]
    assert found.overrides == ["data.root=/x", "task=posed", "seed=3"]
