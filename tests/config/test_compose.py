import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from coopmap.config import Config, ConfigError, compose, conf_dir, load_config
from coopmap.config.compose import from_yaml, to_yaml
from coopmap.config.errors import config_keys, nearest_key

CONF = conf_dir()
ROOT_SET = "data.root=/data/opv2v"


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture(autouse=True)
def _without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("COOPMAP_DATA_ROOT", "COOPMAP_DEPTH_ROOT", "COOPMAP_WEIGHTS", "COOPMAP_CACHE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("experiment", choices("experiment"))
@pytest.mark.parametrize(  # test_pairs.py composes every experiment on every machine as well
    "machine", [pytest.param(name, marks=[pytest.mark.slow] * (name != "local3090")) for name in choices("machine")]
)
def test_every_experiment_composes_on_every_machine(machine: str, experiment: str) -> None:
    config = load_config([f"machine={machine}", f"experiment={experiment}", ROOT_SET])
    assert (config.machine, config.experiment) == (machine, experiment)
    assert config.data.root == "/data/opv2v"


@pytest.mark.parametrize(
    "choice",
    [
        f"{group}={choice}"
        for group in ("data", "model", "loss", "loss/start", "optim", "logger", "debug", "preset")
        for choice in choices(group)
    ],
)
def test_every_choice_composes(choice: str) -> None:
    sizes = ["data.panorama.height=80", "data.panorama.width=320"]  # patches of 8 pixels
    load_config([choice, *(sizes if choice == "model=mapanything_matching" else [])])


def test_experiments_say_how_to_run_them() -> None:
    for group in ("experiment", "debug"):
        for name in choices(group):
            lines = (CONF / group / f"{name}.yaml").read_text().splitlines()
            assert lines[1] == f"# python -m coopmap.train {group}={name}"


@pytest.mark.parametrize("override", ["data.town={seed: 3}", "data.town.seed=3"])
def test_a_town_that_is_null_is_named_with_what_describes_one(override: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(override)}: data\.town is null here.* expected data=town"):
        load_config(["machine=laptop", "data.root=/data/opv2v", override])
    described = load_config(["machine=laptop", "data=town", override]).data.town
    assert described is not None
    assert described.seed == 3


def test_without_gpu_synthetic_streets_and_a_small_model() -> None:
    config = load_config()
    assert config.machine == "laptop"
    assert config.data.town is not None
    assert config.data.town.root == config.data.root
    assert config.model.name == "mapanything_matching"


def test_gpu_is_detected_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coopmap.config.machine._count_by_nvidia_smi", lambda: 4)
    assert load_config([ROOT_SET]).machine == "laptop"  # CUDA_VISIBLE_DEVICES is empty
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    config = load_config([ROOT_SET])
    assert (config.machine, config.trainer.precision, config.data.panorama.width) == ("gpu", "bf16-mixed", 1008)
    assert load_config([ROOT_SET, "machine=laptop"]).trainer.accelerator == "cpu"


def test_command_line_wins_over_machine_and_experiment() -> None:
    config = load_config(["model=mapanything_v1", "loss=overall", "trainer.max_epochs=3", "data=panorama", ROOT_SET])
    assert config.model.encoder.dim == 1024
    assert config.loss.weights.pose_trans == 1.0
    assert config.trainer.max_epochs == 3
    assert config.data.panorama.width == 1008


def test_debug_presets_win_over_the_machine() -> None:
    assert load_config(["debug=fast"]).trainer.fast_dev_run == 2
    assert load_config(["debug=overfit"]).trainer.max_epochs == 100


def test_local3090_takes_paths_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPMAP_DATA_ROOT", "/raid/opv2v")
    monkeypatch.setenv("COOPMAP_DEPTH_ROOT", "/raid/depth")
    config = load_config(["machine=local3090"])
    assert (config.data.root, config.data.depth_root) == ("/raid/opv2v", "/raid/depth")
    assert (config.trainer.devices, config.strategy.name) == (10, "ddp_zero1")
    assert config.model.checkpointing.encoder
    assert config.model.checkpointing.info_sharing
    assert config.model.checkpointing.heads


@pytest.mark.parametrize("override", ["data.splits.val=validation_2", "data.splits={val: validation_2}"])
def test_folders_of_splits_are_named_on_the_command_line(override: str) -> None:
    assert load_config(["data.root=/x", override]).data.splits == {"val": "validation_2"}
    with pytest.raises(ConfigError, match=r"data\.splits=vla: expected one of train, val"):
        load_config(["data.root=/x", "data.splits.vla=validation_2"])


def test_new_parts_may_get_a_learning_rate() -> None:
    assert load_config(["optim.lr_of.pose_head=1e-3"]).optim.lr_of["pose_head"] == 1e-3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.rooot=/x", r"data\.rooot: no such key\. Did you mean data\.root\?"),
        ("lr=3", r"lr: no such key\. Did you mean optim\.lr\?"),
        ("optm.lr=3", r"optm: no such key\. Did you mean optim\?"),
        ("+data.panorama.widht=28", r"data\.panorama\.widht: no such key\. Did you mean data\.panorama\.width\?"),
        ("trainer.max_epoch=3", r"Did you mean trainer\.max_epochs\?"),
        ("experimnt=cyl_posefix", r"experimnt: no such key\. Did you mean experiment\?"),
        ("experiment=cyl_posfix", r"experiment=cyl_posfix: no such choice.*Did you mean experiment=cyl_posefix\?"),
        (
            "data=twon",
            r"data=twon: no such choice; there are ablation_densified, four_camera, market, mosaic, panorama, "
            r"streets, town.*Did you mean data=town\?",
        ),
        (
            "experiment=defects/crpo",
            r"experiment=defects/crpo: no such choice; there are defects/crop, defects/direction_only, "
            r"defects/z_for_range\. Did you mean experiment=defects/crop\?",
        ),
        ("optim/train=head", r"optim/train=head: no such choice; there are biases, .*Did you mean optim/train=heads\?"),
        ("machine=local3900", r"Did you mean machine=local3090\?"),
        ("seed=abc", r"seed: Value 'abc' of type 'str' could not be converted to Integer"),
        ("data.augmentation.yaw_roll=3.5", r"data\.augmentation\.yaw_roll: Value '3\.5'.*"),
        ("data.panorama.surface=bowel", r"data\.panorama\.surface=bowel: expected one of .* \(did you mean bowl\?\)"),
        ("optim.warmup_fraction=2", r"optim\.warmup_fraction=2\.0: expected a share in \[0, 1\)"),
        ("model.info_sharing.num_heads=5", r"^model\.info_sharing\.num_heads=5: expected a divisor of dim=128"),
        ("model.encoder.mlp=gellu", r"^model\.encoder\.mlp=gellu: expected one of .* \(did you mean gelu\?\)"),
        ("logger.mode=wanb", r"logger\.mode=wanb: expected one of .* \(did you mean wandb\?\)"),
        ("seed=${sed}", r"seed: Interpolation key 'sed' not found"),
        ("seed", r"cannot read 'seed': write key=value"),
        ("loss=[pose,v11]", r"loss=\[pose,v11\]: expected one choice; several, without brackets, are for a sweep"),
        ("+experiment=cyl_posefix", r"\+experiment=\.\.\.: experiment is there already; leave the \+ out"),
        ("hydra.run.dir=here", r"hydra\.run\.dir=here: has no effect here; a run's folder is run_dir=FOLDER"),
        ("hydra.job.chdir=true", r"hydra\.job\.chdir=true: has no effect here"),
    ],
)
def test_mistakes_name_the_key_and_the_nearest_right_one(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config([override])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "warmup: 3",
            r"optim\.warmup \(in conf/optim/mine\.yaml\): no such key\. Did you mean optim\.warmup_fraction\?",
        ),
        ("lr: fast", r"optim\.lr \(in conf/optim/mine\.yaml\): Value 'fast' of type 'str'"),
    ],
)
def test_mistakes_in_files_name_the_file(
    content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "conf"
    for file in CONF.rglob("*.yaml"):
        copy = folder / file.relative_to(CONF)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())
    (folder / "optim" / "mine.yaml").write_text(content)
    monkeypatch.setattr(compose, "conf_dir", lambda: folder)
    with pytest.raises(ConfigError, match=message):
        load_config(["optim=mine"])


def test_nearest_key_prefers_siblings_then_the_same_word_elsewhere() -> None:
    keys = ["a", "a.width", "a.height", "b", "b.depth"]
    assert nearest_key("a.hight", keys) == "a.height"
    assert nearest_key("a.depth", keys) == "b.depth"
    assert nearest_key("zzz", keys) is None


def test_config_keys_cover_nested_and_optional_nodes() -> None:
    keys = set(config_keys(Config))
    assert {"seed", "data", "data.panorama.width", "data.town.lidar.beams", "trainer.max_epochs"} <= keys


def test_stored_configuration_reads_back_equal() -> None:
    config = load_config(["optim.lr_of.encoder=1e-6", "trainer.limit_val_batches=0.5"])
    text = to_yaml(config)
    assert "${" not in text
    assert from_yaml(text) == config
    changed = from_yaml(text, ["optim.lr=2e-4", "data.num_workers=0"])
    assert (changed.optim.lr, changed.data.num_workers) == (2e-4, 0)
    assert changed.run_dir == config.run_dir


def test_stored_configuration_refuses_wrong_keys_and_group_choices() -> None:
    text = to_yaml(load_config())
    with pytest.raises(ConfigError, match=r"optim\.lrr: no such key\. Did you mean optim\.lr\?"):
        from_yaml(text, ["optim.lrr=1"])
    with pytest.raises(ConfigError, match="data=panorama: a stored configuration has no groups"):
        from_yaml(text, ["data=panorama"])
    stale = yaml.safe_load(text) | {"sead": 1}
    with pytest.raises(ConfigError, match=r"sead: no such key\. Did you mean seed\?"):
        from_yaml(yaml.safe_dump(stale))


def test_runs_get_folders_of_their_own() -> None:
    first, second = load_config(["seed=3"]), load_config(["seed=3"])
    assert first.run_dir != second.run_dir
    assert first.run_dir.startswith("runs/cyl_posefix/")
    assert first.run_dir.endswith("_seed3")
    assert load_config(["run_dir=/tmp/mine"]).run_dir == "/tmp/mine"


def test_trainer_keys_are_those_of_lightning() -> None:
    import inspect

    from lightning import Trainer

    set_by_the_program = {
        "logger",
        "callbacks",
        "plugins",
        "default_root_dir",
        "use_distributed_sampler",
        "enable_progress_bar",
        "enable_checkpointing",
    }
    of_no_use = {
        "limit_predict_batches",
        "barebones",
        "reload_dataloaders_every_n_epochs",
        "enable_autolog_hparams",
        "model_registry",
    }
    known = set(inspect.signature(Trainer).parameters)
    ours = {key.removeprefix("trainer.") for key in config_keys(Config) if key.startswith("trainer.")}
    assert ours <= known
    assert ours == known - set_by_the_program - of_no_use


def run_cli(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coopmap.train", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def test_command_line_mistake_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = run_cli("optim.lrr=3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: optim.lrr: no such key. Did you mean optim.lr?\n"
    assert not list(tmp_path.iterdir())


def test_help_and_cfg_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['train', 'seed=7', '--cfg', 'job']\n"
        "from coopmap.train import main\n"
        "main()\n"
        "assert not {'torch', 'lightning', 'plotly'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shown = yaml.safe_load(done.stdout)
    assert (shown["seed"], shown["machine"]) == (7, "laptop")
    assert "\n  cyl_baseline " in run_cli("--help", cwd=tmp_path).stdout


@pytest.mark.parametrize("other", ["data.layout=mosaic", "data.layout=cameras", "data.panorama.geometry=central"])
def test_only_what_panoramas_show_can_be_densified(other: str) -> None:
    assert load_config(["data=ablation_densified", ROOT_SET]).data.panorama.densify_px == 1
    with pytest.raises(ConfigError, match=rf"data\.panorama\.densify_px.*{other.replace('.', '[.]')}"):
        load_config(["data=ablation_densified", ROOT_SET, other])


@pytest.mark.parametrize("name", choices("experiment/defects"))
def test_a_defect_is_the_main_road_with_one_change(name: str) -> None:
    """What the study of defects trains differs from what it is set against in the defect alone."""
    good, bad = (load_config(["preset=demo", f"experiment={each}"]) for each in ("cyl_matching", f"defects/{name}"))
    assert bad.experiment == f"defects_{name}"
    different = {
        "crop": ("panorama", {"legacy_crop"}),
        "direction_only": ("panorama", {"surface"}),
        "z_for_range": ("depth", {"source", "kind"}),
    }
    section, keys = different[name]
    before, after = (vars(getattr(config.data, section)) for config in (good, bad))
    assert {key for key in before if before[key] != after[key]} == keys
    assert replace(bad.data, **{section: getattr(good.data, section)}) == good.data
    assert bad.preflight.enabled == (name != "crop")  # a preflight would refuse to train on it
    same = {key: getattr(good, key) for key in ("data", "experiment", "run_dir", "preflight")}
    assert replace(bad, **same) == good
