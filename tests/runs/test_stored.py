import hashlib
from pathlib import Path

import pytest
import torch

from coopmap.config import ConfigError, load_config
from coopmap.config.compose import to_yaml
from coopmap.runs.stored import open_checkpoint


def test_a_checkpoint_says_what_it_is_and_holds(tmp_path: Path) -> None:
    config = load_config(["machine=laptop", "seed=3"])
    record = {"config": to_yaml(config), "git_revision": "abc", "weights": {"source": "hub/id", "license": "mit"}}
    file = tmp_path / "a.ckpt"
    torch.save({"coopmap": record, "global_step": 7, "state_dict": {"model.x": torch.arange(3)}}, file)
    stored = open_checkpoint(file)
    assert (stored.path, stored.step, stored.record["git_revision"]) == (file, 7, "abc")
    assert stored.config() == config
    assert stored.config(["seed=4"]).seed == 4
    assert stored.weights == {"source": "hub/id", "license": "mit"}
    assert torch.equal(stored.state_dict["model.x"], torch.arange(3))
    assert stored.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="/nowhere: there is no such checkpoint"):
        open_checkpoint("/nowhere")
    (tmp_path / "a.ckpt").write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"a\.ckpt"):
        open_checkpoint(tmp_path / "a.ckpt")
    torch.save({"model": {}}, tmp_path / "b.ckpt")
    with pytest.raises(ConfigError, match=r"not a checkpoint of a coopmap run \(for weights alone .*b\.ckpt"):
        open_checkpoint(tmp_path / "b.ckpt")
