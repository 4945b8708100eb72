"""What is chosen where nothing is said, and what wins over it."""

import shutil
from pathlib import Path

import pytest

from coopmap.config import compose, conf_dir, load_config

ROOT_SET = "data.root=/data/opv2v"


@pytest.fixture(autouse=True)
def _without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("COOPMAP_DATA_ROOT", "COOPMAP_DEPTH_ROOT", "COOPMAP_WEIGHTS", "COOPMAP_CACHE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("overrides", "preset", "model", "width"),
    [
        ((), "demo", "mapanything_matching", 320),
        (("experiment=cyl_posefix",), "demo", "mapanything_matching", 320),
        (("experiment=cyl_matching", "trainer.max_epochs=1"), "demo", "mapanything_matching", 320),
        (("machine=laptop", "preset=auto"), "demo", "mapanything_matching", 320),
        (("data=market", "logger=csv"), "demo", "mapanything_matching", 320),
        (("preset=demo", ROOT_SET), "demo", "mapanything_matching", 320),
        (("data=town",), "town", "mapanything_tiny", 168),
        (("data=town", "data.root=/x"), "town", "mapanything_tiny", 168),
        (("model=mapanything_tiny",), "town", "mapanything_tiny", 168),
        (("experiment=four_camera",), "town", "mapanything_tiny", 168),
        (("loss=pose_dense",), "town", "mapanything_tiny", 168),
        ((ROOT_SET,), "none", "mapanything_v1", 1008),
        (("data=panorama",), "none", "mapanything_v1", 1008),
        (("model=mapanything_v11",), "none", "mapanything_v11", 1008),
        (("preset=none",), "none", "mapanything_v1", 1008),
        (("machine=gpu",), "none", "mapanything_v1", 1008),
        (("preset=town", "machine=gpu"), "town", "mapanything_tiny", 168),
        (("preset=town", "model=mapanything_v1", "data=panorama"), "town", "mapanything_v1", 1008),
    ],
)
def test_demo_is_the_default_without_gpu_data_and_model_of_ones_own(
    overrides: tuple[str, ...], preset: str, model: str, width: int
) -> None:
    config = load_config(overrides)
    assert (config.preset, config.model.name, config.data.panorama.width) == (preset, model, width)


def test_the_demo_answers_by_matching_unless_an_objective_is_named() -> None:
    demo = load_config()
    assert demo.data.town is not None
    assert (demo.data.town.style, demo.data.town.per_scenario, demo.model.pose_from) == ("market", True, "alignment")
    assert (demo.loss.weights.matching, demo.loss.weights.pts3d) == (1.0, 0.0)
    assert (
        load_config(["experiment=cyl_posefix"]).loss == load_config(["loss=matching", "preset=demo"]).loss == demo.loss
    )
    assert load_config(["preset=demo", "loss=pose"]).loss.weights.pts3d == 1.0


def test_a_root_from_the_environment_is_data_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPMAP_DATA_ROOT", "/raid/opv2v")
    config = load_config()
    assert (config.preset, config.data.root, config.data.town) == ("none", "/raid/opv2v", None)
    assert load_config(["preset=town"]).data.root == "data/town"


def test_own_root_takes_the_place_of_the_town_at_its_sizes() -> None:
    town, own = load_config(["preset=town"]), load_config(["preset=town", ROOT_SET])
    assert own.data.town is None
    assert own.data.depth_root is None
    assert not own.data.keep_in_memory  # it may be large
    assert (own.data.panorama, own.model) == (town.data.panorama, town.model)
    with_depth = load_config(["preset=town", ROOT_SET, "data.depth_root=/data/depth"])
    assert with_depth.data.depth_root == "/data/depth"


def test_machine_chooses_hardware_only() -> None:
    laptop, gpu, ten = (
        load_config([f"machine={name}", "preset=none", ROOT_SET]) for name in ("laptop", "gpu", "local3090")
    )
    differing = {"machine", "run_dir", "strategy", "trainer"}
    assert {key for key in vars(laptop) if getattr(laptop, key) != getattr(gpu, key)} <= differing
    assert {key for key in vars(laptop) if getattr(laptop, key) != getattr(ten, key)} <= differing | {"data", "model"}
    ten.data.max_views_per_gpu, ten.model.checkpointing = laptop.data.max_views_per_gpu, laptop.model.checkpointing
    assert (ten.data, ten.model) == (laptop.data, laptop.model)
    kept = {"accelerator", "devices", "strategy", "precision"}
    assert {key for key, value in vars(ten.trainer).items() if value != getattr(laptop.trainer, key)} <= kept


def test_named_groups_and_keys_win_over_presets() -> None:
    published, town = load_config([ROOT_SET, "loss=pose_dense"]).loss, load_config(["preset=town"]).loss
    assert (town.robust_alpha, town.weights.normal, town.weights.pose_trans) == (1.0, 0.0, 3.0)
    named = load_config(["machine=laptop", "loss=pose_dense"])
    assert (named.preset, named.loss) == ("town", published)
    both = load_config(["loss=pose_dense", "loss/start=scratch"]).loss
    assert (both.normals, both.robust_alpha, both.weights.normal) == ("dense", 1.0, 0.0)
    assert load_config(["optim=default"]).optim.lr == 1e-4
    key = load_config(["preset=town", "loss.robust_alpha=0.7"])
    assert (key.loss.robust_alpha, key.loss.robust_c) == (0.7, 0.5)


@pytest.mark.parametrize(
    ("named", "pose_trans", "cam_pts3d"),
    [
        ([], 0.1, 0.1),
        (["loss.weights.cam_pts3d=0.2"], 0.1, 0.2),
        (["loss=pose"], 3.0, 1.0),
        (["experiment=cyl_posefix"], 3.0, 1.0),
        (["preset=town"], 3.0, 1.0),
    ],
)
def test_v11_comes_with_its_own_objective(named: list[str], pose_trans: float, cam_pts3d: float) -> None:
    config = load_config(["model=mapanything_v11", ROOT_SET, *named])
    assert (config.loss.weights.pose_trans, config.loss.weights.cam_pts3d) == (pose_trans, cam_pts3d)
    assert load_config(["model=mapanything_v1", ROOT_SET]).loss.weights.pose_trans == 3.0


def test_the_recipe_of_v11() -> None:
    """Upstream's ``lower_encoder_lr`` with the default schedule, and ``finetune_heads_only`` as the last stage."""
    optim = load_config(["model=mapanything_v11", ROOT_SET]).optim
    assert (optim.lr, optim.lr_of, optim.weight_decay) == (1e-4, {"encoder": 5e-6}, 0.05)
    assert (optim.warmup_fraction, optim.final_lr_fraction) == (0.1, 0.01)
    last = load_config(["model=mapanything_v11", ROOT_SET, "optim/train=heads", "optim.lr=5e-6"]).optim
    assert (last.train.only, last.lr) == (["dense_head", "pose_head", "scale_head"], 5e-6)


def test_experiments_win_over_presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(conf_dir(), tmp_path / "conf"))
    lines = ["# @package _global_", "defaults:", "  - override /model: mapanything_v1", "trainer: {max_epochs: 2}"]
    (folder / "experiment" / "mine.yaml").write_text("\n".join(lines))
    monkeypatch.setattr(compose, "conf_dir", lambda: folder)
    config = load_config(["experiment=mine"])
    assert (config.preset, config.model.name, config.trainer.max_epochs) == ("town", "mapanything_v1", 2)


def test_the_town_on_ten_gpus_stays_the_town(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPMAP_WEIGHTS", "/raid/v1.pth")
    config = load_config(["machine=local3090", "data=town"])
    assert (config.data.root, config.data.depth_root) == ("data/town", "data/town_depth")
    assert config.data.steps_per_epoch == 250
    assert (config.trainer.devices, config.data.max_views_per_gpu, config.model.weights) == (10, 4, "/raid/v1.pth")
    assert load_config(["machine=local3090", "preset=town"]).model.weights is None


def test_the_town_goes_where_its_root_says() -> None:
    town = load_config(["data=town", "data.root=X"]).data
    assert town.town is not None
    assert (town.town.root, town.depth_root, town.town.depth_root) == ("X", "X_depth", "X_depth")
    without = load_config(["data=town", "data.root=X", "data.depth_root=null"]).data
    assert without.town is not None
    assert (without.root, without.depth_root, without.town.depth_root) == ("X", None, None)


@pytest.mark.parametrize(
    "further", ["machine=gpu", "machine=local3090", "optim/train=matching", "priors=matched", "seed=1"]
)
def test_streets_are_for_matching(further: str):
    config = load_config(["experiment=cyl_matching", "preset=streets", further])
    assert (config.data.root, config.model.name, config.model.pose_from) == (
        "data/streets",
        "mapanything_matching",
        "alignment",
    )
    assert (config.loss.weights.matching, config.loss.weights.pts3d) == (1.0, 0.0)
    assert config.model.matching.enabled
