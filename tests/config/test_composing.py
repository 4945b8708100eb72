"""What is composed from remembered files is what Hydra composes."""

import shutil
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from coopmap.cli.arguments import Arguments
from coopmap.cli.hydra_run import run_composed
from coopmap.config import Config, composing, conf_dir
from coopmap.config.compose import from_yaml, load_config, register_schema, to_yaml
from coopmap.config.composing import composed

CHOSEN = ["machine=laptop", "preset=town"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Overrides of each composition that is Hydra's."""
    register_schema()
    composing._chosen.cache_clear()
    by_hydra, found = composing._by_hydra, []

    def counted(folder: Path, overrides: list[str]):
        found.append(list(overrides))
        return by_hydra(folder, overrides)

    monkeypatch.setattr(composing, "_by_hydra", counted)
    return found


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["seed=3", "optim.lr=1e-3", "seed=4"],
        ["data.root='/a b'", "data.depth_root=null", "data.splits={val: validation_2}"],
        ["optim.lr_of.encoder=0", "+optim.lr_of.pose_head=1", "model.heads.layer_dims=[8,8,8,8]"],
        ["data.root=${runs_root}/x", "~optim.lr_of.dense_head", "model/fusion=mean", "data.layout=grouped"],
    ],
)
def test_values_are_set_as_by_hydra(values: list[str], asked: list[list[str]]) -> None:
    found = composed(conf_dir(), [*values, *CHOSEN])
    asked.clear()
    expected = composing._by_hydra(conf_dir(), [*values, *CHOSEN])
    assert OmegaConf.to_container(found) == OmegaConf.to_container(expected)
    assert OmegaConf.is_struct(found) == OmegaConf.is_struct(expected)


def test_files_are_merged_once_for_values_that_differ(asked: list[list[str]]) -> None:
    first, second = (composed(conf_dir(), [*CHOSEN, f"seed={seed}", "data.splits.val=x"]) for seed in (1, 2))
    assert (first.seed, second.seed) == (1, 2)
    assert composed(conf_dir(), CHOSEN).data.splits == {}
    assert asked == [CHOSEN]


def test_a_file_that_changed_is_read_again(asked: list[list[str]], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(conf_dir(), tmp_path / "conf"))
    assert composed(folder, CHOSEN).seed == 0
    file = folder / "train.yaml"
    file.write_text(file.read_text() + "\nseed: 7\n")
    assert composed(folder, CHOSEN).seed == 7
    assert len(asked) == 2


@pytest.mark.parametrize("wrong", ["optim.lrr=1", "optim.lr=fast", "data=twon", "seed=1,2", "seed"])
def test_mistakes_are_told_by_hydra(wrong: str, asked: list[list[str]]) -> None:
    with pytest.raises(HydraException):
        composed(conf_dir(), [*CHOSEN, wrong])
    assert asked[-1] == [*CHOSEN, wrong]


def test_text_of_a_configuration_is_that_of_its_schema() -> None:
    config = load_config([*CHOSEN, "optim.lr_of.encoder=1e-6", "data.root='1_0'", "seed=3", "run_dir='null'"])
    assert to_yaml(config) == OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)
    assert from_yaml(to_yaml(config)) == config


def test_a_job_of_a_sweep_composes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    composing._chosen.cache_clear()
    roots = []

    def task(config: Config, overrides: list[str]) -> None:
        roots.append((config.seed, load_config(["machine=laptop", "data.root=a"]).data.root))

    overrides = ["machine=laptop", "data.root=b", "seed=1,2"]
    run_composed(task, Arguments(overrides=overrides, flags=["-m"]))
    assert roots == [(1, "a"), (2, "a")]
