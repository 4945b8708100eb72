"""The script of the long runs: each goes on from the one before, and what is done is left alone."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from coopmap import load_config

from .stand_in import put_stand_in

REPOSITORY = Path(__file__).parents[2]


def test_each_run_goes_on_from_the_one_before_once(tmp_path: Path) -> None:
    if shutil.which("bash") is None or shutil.which("flock") is None:
        pytest.skip("needs bash and flock")
    log, runs, root = (tmp_path / name for name in ("calls", "runs", "streets"))
    settings = put_stand_in(tmp_path, answers=True) | {"OUT": str(runs), "ROOT": str(root)}
    for _ in range(2):
        subprocess.run(["experiments/study/long.sh"], cwd=REPOSITORY, env={**os.environ, **settings}, check=True)
    calls = [line.split()[2:] for line in log.read_text().splitlines() if line.startswith("-m ")]
    trainings = [call[1:] for call in calls if call[0] == "train"]
    names = ["panorama_0", "long_1", "long_2", "long_3", "long_looks", "long_far", "long_all"]
    assert [Path(value(words, "run_dir")).name for words in trainings] == names
    assert [call[0] for call in calls].count("evaluate") == len(names) + 3  # the last two on other streets too
    started_from = ["panorama_0", "long_1", "long_2", "long_2", "long_looks", "long_far"]
    for words, before in zip(trainings[1:], started_from, strict=True):
        assert value(words, "init_from") == f"{runs}/{before}/checkpoints/last.ckpt"
        config = load_config([word for word in words if not word.startswith(("init_from=", "resume="))])
        assert (config.data.min_agents, config.data.max_agents, config.data.steps_per_epoch) == (4, 4, 500)
        assert config.model.pose_from == "alignment"
    steps = [500 * int(value(words, "trainer.max_epochs")) for words in trainings[1:]]
    assert steps == [2000, 4500, 2500, 1500, 3000, 4000]
    places = ["_without_oldtown", "_far", "_all"]
    assert [value(words, "data.root") for words in trainings[-3:]] == [f"{root}{place}" for place in places]
    evaluations = [call[1:] for call in calls if call[0] == "evaluate"]
    measured = ["_opv2v", "_looks", "_opv2v", "_looks", ""]
    assert [value(words, "data.root") for words in evaluations[-5:]] == [f"{root}{place}" for place in measured]
    for words in trainings[-3:] + evaluations[-5:]:
        assert value(words, "data.depth_root") == f"{value(words, 'data.root')}_depth"
    assert len({value(words, "output") for words in evaluations[1:]}) == len(evaluations) - 1


def value(words: list[str], key: str) -> str:
    """Of an override, of which there is one."""
    (found,) = (word.partition("=")[2] for word in words if word.startswith(f"{key}="))
    return found
