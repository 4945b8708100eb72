import sys

import pytest

from coopmap.evaluate import parse


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run=/nowhere"], "run=/nowhere: there is no such folder"),
        (["checkpoint=/nowhere.ckpt"], "/nowhere.ckpt: there is no such checkpoint"),
        (["rn=/nowhere"], "rn: did you mean run?"),
        (["split=val"], "give one of run=RUN_FOLDER, checkpoint=FILE and weights=HUB_ID|FILE|FOLDER"),
        (["run=a", "seed"], "seed: expected key=value"),
        (["run=a", "refine=yes"], "refine=yes: expected true or false"),
        (["run=a", "evaluate.refin=true"], "evaluate.refin: did you mean refine?"),
        (["run=a", "frames=b", "split=val"], "split=val and frames=b: give one of them"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from coopmap import evaluate as program

    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_own_keys_and_overrides_are_told_apart() -> None:
    asked, overrides = parse(
        ["run=a", "evaluate.refine=true", "icp=False", "data.root=/x", "task=posed", "seed=3", "trainer.devices=2"]
    )
    assert (asked.run, asked.refine, asked.icp, asked.split) == ("a", True, False, None)
    assert overrides == ["data.root=/x", "task=posed", "seed=3", "trainer.devices=2"]
