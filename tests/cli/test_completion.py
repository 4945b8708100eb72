"""Completion: what can be typed next, and the script of bash in a real one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coopmap.cli import completion
from coopmap.cli.main import main

BASH = shutil.which("bash")


def answers(*words: str) -> list[str]:
    return completion.answer(words).splitlines()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a run, a folder and a file."""
    (tmp_path / "runs" / "cyl" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "cyl" / "one" / "config.yaml").write_text("")
    (tmp_path / "photos").mkdir()
    (tmp_path / "list.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["tr"], ["train"]),
        (["bench", ""], ["model", "loss", "train", "data", "fusion", "priors", "icp", "--help"]),
        (["bench", "loss", "de"], ["device="]),
        (["bench", "loss", "loss=pose_"], ["loss=pose_dense", "loss=pose_matching"]),
        (["train", "da"], ["data=", "data."]),
        (["train", "data.pano"], ["data.panorama."]),
        (["train", "data.panorama.v"], ["data.panorama.v_fov_deg="]),
        (
            ["train", "data.panorama.surface="],
            [f"data.panorama.surface={name}" for name in ("bowl", "sphere", "infinite")],
        ),
        (["train", "experiment=cyl_p"], ["experiment=cyl_panorama_aware", "experiment=cyl_posefix"]),
        (["train", "-m", "experiment=four_camera,cyl_b"], ["experiment=four_camera,cyl_baseline"]),
        (["train", "optim/train=l"], ["optim/train=lora"]),
        (["train", "++model.rig"], ["++model.rig_constraint="]),
        (["train", "model.rig_constraint="], ["model.rig_constraint=true", "model.rig_constraint=false"]),
        (["train", "--mul"], ["--multirun"]),
        (["evaluate", "--"], ["--help"]),
        (["evaluate", "split=t"], ["split=test", "split=train", "split=test_culvercity"]),
        (["synth", "lidar.b"], ["lidar.beams="]),
        (["infer", "model=mapanything_t"], ["model=mapanything_tiny"]),
        (["help", "data.pano"], ["data.panorama."]),
        (["help", "data.panorama.su"], ["data.panorama.surface"]),
        (["help", "bench", "mo"], ["model"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["evaluate", "run="], ["run=latest", "run=cyl/one", "run=list.json", "run=photos/", "run=runs/"]),
        (["train", "resume=l"], ["resume=latest", "resume=list.json"]),
        (["compare", "la"], ["latest"]),
        (["infer", "images=ph"], ["images=photos/"]),
        (["compare", "runs/c"], ["runs/cyl/"]),
        (["nonsense", "a"], []),
    ],
)
def test_words_are_completed(words: list[str], found: list[str], folder: Path) -> None:
    assert sorted(answers(*words)) == sorted(found)


def test_scripts_are_printed_and_other_shells_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        main(["completion", shell])
        assert "coopmap __complete" in capsys.readouterr().out.replace('"${COMP_WORDS[0]}"', "coopmap")
    with pytest.raises(SystemExit) as ended:
        main(["completion", "csh"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: completion csh: expected one of bash, zsh, fish\n"


@pytest.mark.skipif(BASH is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "place", "replies"),
    [
        (["coopmap", "ev"], 1, ["evaluate"]),
        # as bash splits `experiment=cyl_b` with its usual COMP_WORDBREAKS, and without = among them
        (["coopmap", "train", "experiment", "=", "cyl_b"], 4, ["cyl_baseline"]),
        (["coopmap", "train", "experiment=cyl_b"], 2, ["experiment=cyl_baseline"]),
        (["coopmap", "train", "priors", "="], 3, ["encoded", "gps", "matched", "noisy", "none", "rig"]),
        (["coopmap", "train", "data", "=", "town", "data.panorama.pro"], 5, ["data.panorama.projection="]),
        (["coopmap", "evaluate", "split", "=", "v"], 4, ["val"]),
        (["coopmap", "infer", "device", "=", "cuda", ":", ""], 6, []),
        (["coopmap", "bench", ""], 2, ["model", "loss", "train", "data", "fusion", "priors", "icp", "--help"]),
    ],
)
def test_bash_completes(words: list[str], place: int, replies: list[str], folder: Path) -> None:
    command = folder / "coopmap"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m coopmap "$@"\n')
    command.chmod(0o755)
    quoted = " ".join(f"'{word}'" for word in words)
    script = (
        f'PATH="{folder}:$PATH"\neval "$(coopmap completion bash)"\n'
        f"COMP_WORDS=({quoted}); COMP_CWORD={place}\n_coopmap\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run([str(BASH), "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.split() == replies
