"""The sweeps that are shipped, as W&B and Hydra read them."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from coopmap.config import Config, conf_dir, load_config
from coopmap.config.errors import config_keys

ROOT = Path(__file__).parents[2]


def sweep() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "experiments" / "sweeps" / "fusion.yaml").read_text())


def combinations(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    names = list(content["parameters"])
    for values in itertools.product(*(content["parameters"][name]["values"] for name in names)):
        yield dict(zip(names, values, strict=True))


def command_line(content: dict[str, Any], chosen: dict[str, Any]) -> list[str]:
    """What W&B's agent would start."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    args = create_sweep_command_args({"args": {name: {"value": value} for name, value in chosen.items()}})
    macros = {"${env}": ["/usr/bin/env"], "${args_no_hyphens}": args["args_no_hyphens"]}
    return [word for part in create_sweep_command(content["command"]) for word in macros.get(part, [part])]


@pytest.mark.parametrize("chosen", list(combinations(sweep())), ids=str)
def test_every_run_of_the_fusion_sweep_composes(chosen: dict[str, Any]) -> None:
    words = command_line(sweep(), chosen)
    launcher, overrides = words[: words.index("coopmap.train") + 1], words[words.index("coopmap.train") + 1 :]
    config = load_config(overrides)
    assert (config.experiment, config.seed) == (chosen["experiment"], chosen["seed"])
    assert config.logger.mode == "wandb"
    assert launcher[:2] == ["/usr/bin/env", "torchrun"]
    assert f"--nproc-per-node={config.trainer.devices}" in launcher
    assert config.logger.project == sweep()["project"]


def test_fusion_sweep_repeats_every_variant_over_three_seeds() -> None:
    content = sweep()
    assert (content["method"], len(content["parameters"]["seed"]["values"])) == ("grid", 3)
    assert content["metric"] == {"name": load_config().checkpoint.monitor, "goal": "minimize"}


def test_optuna_searches_keys_that_exist() -> None:
    content = OmegaConf.load(conf_dir() / "sweep" / "optuna.yaml")
    assert {"override /hydra/sweeper": "optuna"} in content.defaults
    assert set(content.hydra.sweeper.params) <= set(config_keys(Config))
    assert content.hydra.sweeper.direction == "minimize"
    overrides = [f"{key}={value}" for key, value in {"optim.lr": 1e-5, "optim.warmup_fraction": 0.2}.items()]
    assert set(content.hydra.sweeper.params) == {override.partition("=")[0] for override in overrides}
    load_config(overrides)
