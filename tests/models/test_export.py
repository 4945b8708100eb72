from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model

from coopmap import export as program
from coopmap.config import Config, ConfigError
from coopmap.config.compose import to_yaml
from coopmap.export import export
from coopmap.inference.loading import load_run
from coopmap.models import MapAnything, load_weights
from coopmap.models.hub import WeightsMismatchError
from coopmap.models.upstream import released_tensors, upstream_config
from coopmap.runs import export as runs_export

from .support import make_observation, stand_in

ORIGIN = {
    "source": "facebook/map-anything-v1",
    "revision": "0123456789abcdef0123456789abcdef01234567",
    "sha256": "f" * 64,
    "license": "cc-by-nc-4.0",
}


def save_checkpoint(path: Path, config: Config, model: MapAnything, weights: dict[str, Any] | None = None) -> Path:
    """A checkpoint as a run writes it."""
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    record = {"config": to_yaml(config), "git_revision": "abc", "weights": weights, "mean_poses": {}}
    torch.save({"state_dict": state, "global_step": 7, "optimizer_states": [], "coopmap": record}, path)
    return path


@pytest.fixture(scope="module")
def whole() -> MapAnything:
    """A trained model with all geometric inputs."""
    torch.manual_seed(1)
    return MapAnything(stand_in("model.inputs={rays: true, depth: true, pose: true}").model).eval()


@pytest.fixture(scope="module")
def released(whole: MapAnything, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export."""
    folder = tmp_path_factory.mktemp("export")
    config = stand_in("model.inputs={rays: true, depth: true, pose: true}")
    return export(save_checkpoint(folder / "best.ckpt", config, whole, ORIGIN), folder / "released")


@torch.no_grad()
def assert_same_output(first: MapAnything, second: MapAnything) -> None:
    observation = make_observation(1, 2, 28, 42)
    expected, actual = first(observation), second(observation)
    for name in ("points_world", "pose_quat", "scale", "confidence", "mask_logits"):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name), rtol=0, atol=0)


def test_an_export_reloads_to_the_same_output(whole, released):
    torch.manual_seed(2)
    model = MapAnything(whole.cfg).eval()
    report = load_weights(model, released)
    assert not report.mismatch
    assert report.left_out == ()
    assert report.license == "cc-by-nc-4.0"
    assert_same_output(whole, model)


def test_what_upstream_calls_to_load_finds_every_name(whole, released):
    torch.manual_seed(2)
    model = MapAnything(whole.cfg).eval()
    missing, unexpected = load_model(model, released / "model.safetensors", strict=True)
    assert not missing
    assert not unexpected
    assert_same_output(whole, model)


def test_the_file_holds_each_tensor_once_under_its_first_name(whole, released):
    with safe_open(released / "model.safetensors", "pt") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert names == set(released_tensors(whole)[0])
    assert metadata.pop("format") == "pt"
    assert set(metadata.values()) < names
    assert names | set(metadata) == set(whole.state_dict())
    assert "dense_head.0.input_process.0.1.weight" in names
    assert not any(name.startswith(("dpt_feature_head.", "dpt_regressor_head.")) for name in names)


def test_written_configuration_keeps_infinite_bounds(whole, released):
    written = json.loads((released / "config.json").read_text())
    assert written == upstream_config(whole.cfg)
    assert written["pred_head_config"]["dpt_adaptor"]["depth_vmax"] == math.inf
    assert written["encoder_config"]["keep_first_n_layers"] == 1
    assert written["geometric_input_config"]["depth_prob"] == 1


def test_whoever_may_read_the_configuration_may_read_the_weights(released):
    modes = {(released / name).stat().st_mode for name in ("config.json", "README.md", "model.safetensors")}
    assert len(modes) == 1


def test_model_card_names_license_origin_and_run(released):
    card = (released / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-nc-4.0\nbase_model: facebook/map-anything-v1\n")
    assert ORIGIN["revision"] in card
    assert ORIGIN["sha256"] in card
    assert "| checkpoint | best.ckpt, step 7 |" in card


def test_encoders_that_the_model_lacks_are_lent_or_the_export_is_refused(whole, released, tmp_path):
    torch.manual_seed(3)
    config = stand_in("model.inputs.rays=true", "data.panorama.v_fov_deg=40")
    model = MapAnything(config.model).eval()
    checkpoint = save_checkpoint(tmp_path / "last.ckpt", config, model)
    with pytest.raises(ConfigError, match=r"without depth_encoder, .*cam_trans_scale_encoder.*give weights="):
        export(checkpoint, tmp_path / "refused")
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]

    folder = export(checkpoint, tmp_path / "lent", weights=str(released), license="mit")
    loaded = MapAnything(whole.cfg)
    load_weights(loaded, folder)
    for part, origin in (("ray_dirs_encoder", model), ("pose_head", model), ("depth_encoder", whole)):
        actual, expected = (getattr(owner, part).state_dict() for owner in (loaded, origin))
        assert all(torch.equal(actual[name], expected[name]) for name in expected)
    written = json.loads((folder / "config.json").read_text())["geometric_input_config"]
    assert (written["overall_prob"], written["ray_dirs_prob"], written["depth_prob"], written["cam_prob"]) == (
        1,
        1,
        0,
        0,
    )
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\nlibrary_name")
    assert f"| encoders of geometric inputs borrowed from | {released}" in card
    assert "around each vehicle (data.layout=panorama data.panorama.v_fov_deg=40.0)." in card
    again = MapAnything(config.model).eval()
    assert load_weights(again, folder).left_out == (
        "cam_rot_encoder",
        "cam_trans_encoder",
        "cam_trans_scale_encoder",
        "depth_encoder",
        "depth_scale_encoder",
    )
    assert_same_output(model, again)


def test_a_model_without_a_marked_reference_is_exported_as_upstream_builds_it(whole, tmp_path):
    """Upstream then has no mark among its weights, and loads strictly."""
    inputs = "model.inputs={rays: true, depth: true, pose: true}"
    config = stand_in(inputs, "model.info_sharing.mark_reference=false")
    torch.manual_seed(4)
    model = MapAnything(config.model).eval()
    checkpoint = save_checkpoint(tmp_path / "last.ckpt", config, model)
    folder = export(checkpoint, tmp_path / "unmarked", license="mit")
    written = json.loads((folder / "config.json").read_text())["info_sharing_config"]["module_args"]
    assert written["distinguish_ref_and_non_ref_views"] is False
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys()) | set(file.metadata()) - {"format"}
    assert names == set(whole.state_dict()) - {"info_sharing.view_pos_table"}

    for source in (folder, checkpoint):
        again = MapAnything(config.model).eval()
        assert load_weights(again, source).left_out == ()
        assert_same_output(model, again)
    stored, stored_config = load_run(checkpoint)
    assert not stored_config.model.info_sharing.mark_reference
    assert_same_output(model, stored.eval())


def test_the_mark_of_released_weights_is_left_out_and_never_made_up(whole, released, tmp_path):
    config = stand_in("model.inputs={rays: true, depth: true, pose: true}", "model.info_sharing.mark_reference=false")
    model = MapAnything(config.model).eval()
    assert load_weights(model, released).left_out == ("info_sharing.view_pos_table",)
    assert torch.equal(model.state_dict()["scale_token"], whole.state_dict()["scale_token"])
    unmarked = export(save_checkpoint(tmp_path / "last.ckpt", config, model), tmp_path / "unmarked", license="mit")
    expected = r"missing \(1\):\n  info_sharing\.view_pos_table\n.*model\.info_sharing\.mark_reference=false"
    with pytest.raises(WeightsMismatchError, match=expected):
        load_weights(MapAnything(whole.cfg), unmarked)


def test_a_full_disk_is_named_and_nothing_stays_behind(released, tmp_path, monkeypatch):
    def save_file(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(runs_export, "save_file", save_file)
    with pytest.raises(OSError, match=r"No space left on device: '.*/again'$"):
        export(released.parent / "best.ckpt", tmp_path / "again")
    assert not list(tmp_path.iterdir())


def test_parts_that_upstream_does_not_know_are_refused(whole, tmp_path):
    config = stand_in("model.inputs={rays: true, depth: true, pose: true}")
    path = tmp_path / "last.ckpt"
    state = {f"model.{name}": value for name, value in whole.state_dict().items()}
    state["model.view_fusion.weight"] = torch.ones(2)
    torch.save({"state_dict": state, "coopmap": {"config": to_yaml(config)}}, path)
    with pytest.raises(ConfigError, match="upstream lacks: view_fusion"):
        export(path, tmp_path / "released")


def test_an_existing_folder_is_left_alone(released):
    before = sorted(entry.name for entry in released.iterdir())
    with pytest.raises(ConfigError, match="exists already"):
        export(released.parent / "best.ckpt", released)
    assert (
        sorted(entry.name for entry in released.iterdir())
        == before
        == ["README.md", "config.json", "model.safetensors"]
    )


@pytest.mark.parametrize("content", [None, b"no archive"])
def test_what_is_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "last.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"last\.ckpt"):
        export(path, tmp_path / "released")


def test_weights_alone_are_no_checkpoint_of_a_run(tmp_path):
    torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "upstream.pth")
    with pytest.raises(ConfigError, match="not a checkpoint of a coopmap run"):
        export(tmp_path / "upstream.pth", tmp_path / "released")


@pytest.mark.parametrize("name", ["released", "released/model.safetensors"])
def test_an_export_is_weights_alone_and_no_checkpoint(name, released, tmp_path):
    with pytest.raises(ConfigError, match=rf"{name}: not a checkpoint .* \(for weights alone use weights=.*{name}\)$"):
        export(released.parent / name, tmp_path / "again")


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(
        ConfigError, match=r"is a folder, expected a checkpoint file \(run=.* takes the best of a run\)$"
    ):
        export(tmp_path, tmp_path / "released")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["output=x"], "give either run=RUN or checkpoint=FILE"),
        (["checkpoint=a.ckpt"], "give output=FOLDER"),
        (["checkpoint=a.ckpt", f"output={__file__}/x"], "is a file; expected a folder"),
        (["chekpoint=a.ckpt", "output=x"], "chekpoint: no such key. Did you mean checkpoint?"),
    ],
)
def test_command_line_explains_mistakes(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["export", *arguments])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    written = capsys.readouterr().err
    assert message in written
    assert "Traceback" not in written


def test_command_line_exports_the_newest_run(whole, tmp_path, monkeypatch, capsys):
    run = tmp_path / "runs" / "cyl_posefix" / "run"
    (run / "checkpoints").mkdir(parents=True)
    config = stand_in("model.inputs={rays: true, depth: true, pose: true}")
    save_checkpoint(run / "checkpoints/last.ckpt", config, whole)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["export", "run=latest", f"output={tmp_path / 'out'}"])
    program.main()
    assert "the license is unknown" in capsys.readouterr().out
    model = MapAnything(whole.cfg)
    load_weights(model, tmp_path / "out")
    assert torch.equal(model.scale_token, whole.scale_token)


@pytest.mark.slow
def test_a_model_of_mosaics_is_upstreams_without_the_addon_alone(whole, tmp_path):
    layout = ["model.inputs={rays: true, depth: true, pose: true}", "data.layout=mosaic", "task=calibrated"]
    config = stand_in(*layout)
    folder = export(save_checkpoint(tmp_path / "plain.ckpt", config, whole, ORIGIN), tmp_path / "released")
    model = MapAnything(whole.cfg).eval()
    assert not load_weights(model, folder).mismatch
    assert_same_output(whole, model)
    card = (folder / "README.md").read_text()
    assert "left, front, right and rear camera side by side" in card
    assert "panorama" not in card
    told = stand_in(*layout, "model.plucker=true")
    path = save_checkpoint(tmp_path / "told.ckpt", told, MapAnything(told.model), ORIGIN)
    with pytest.raises(ConfigError, match=r"model\.plucker=true: upstream has no such part"):
        export(path, tmp_path / "refused")


def test_a_model_that_matches_by_gravity_is_exported_without(tmp_path):
    inputs = "model.inputs={rays: true, depth: true, pose: true}"
    config = stand_in(inputs, "loss=pose_matching", "model.matching.gravity=true")
    path = save_checkpoint(tmp_path / "best.ckpt", config, MapAnything(config.model), ORIGIN)
    assert (export(path, tmp_path / "released", without_matching=True) / "model.safetensors").is_file()


def test_encoders_of_poses_that_matching_weighed_instead_are_borrowed(released, whole, tmp_path):
    config = stand_in("model.inputs={rays: true, depth: true}", "loss=pose_matching", "priors=matched")
    path = save_checkpoint(tmp_path / "best.ckpt", config, MapAnything(config.model), ORIGIN)
    with pytest.raises(ConfigError, match=r"without cam_rot_encoder, .*; give weights="):
        export(path, tmp_path / "refused", without_matching=True)
    folder = export(path, tmp_path / "whole", weights=str(released), without_matching=True)
    assert not load_weights(MapAnything(whole.cfg), folder).mismatch


def test_a_mean_of_cameras_is_not_exported_as_another_model(tmp_path):
    config = stand_in("model/fusion=mean", "data.layout=grouped", "model.fusion.directions=false")
    path = save_checkpoint(tmp_path / "last.ckpt", config, MapAnything(config.model))
    with pytest.raises(ConfigError, match=r"model\.fusion\.kind=mean"):
        export(path, tmp_path / "released")
    assert not (tmp_path / "released").exists()


def test_an_export_touches_nothing_beside_its_folder(whole, tmp_path):
    """Neither what has the name of a temporary folder, nor what a stored configuration names."""
    precious = tmp_path / ".released.tmp"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    config = stand_in("model.inputs={rays: true, depth: true, pose: true}", f"data.cache_dir={tmp_path / 'cache'}")
    config.experiment, evil = "<script>alert(1)</script> | x", "mit\nbase_model: evil"
    path = save_checkpoint(tmp_path / "last.ckpt", config, whole, ORIGIN | {"license": evil})
    folder = export(path, tmp_path / "released")
    assert (precious / "thesis.tex").read_text() == "years of work"
    assert {entry.name for entry in tmp_path.iterdir()} == {".released.tmp", "last.ckpt", "released"}
    card = (folder / "README.md").read_text()
    assert "<script>" not in card
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \\| x" in card
    assert "\nbase_model: evil" not in card


def test_a_model_that_matches_is_exported_without_if_asked_for(tmp_path):
    """What remains is the same network with the poses of its head."""
    inputs = "model.inputs={rays: true, depth: true, pose: true}"
    config = stand_in(inputs, "loss=pose_matching")
    assert config.model.pose_from == "alignment"
    model = MapAnything(config.model).eval()
    checkpoint = save_checkpoint(tmp_path / "best.ckpt", config, model, ORIGIN)
    with pytest.raises(ConfigError, match="without_matching=true exports the rest"):
        export(checkpoint, tmp_path / "refused")
    folder = export(checkpoint, tmp_path / "regresses", without_matching=True)
    assert "matching: poses are regressed here" in (folder / "README.md").read_text()
    regressing = MapAnything(stand_in(inputs).model).eval()
    with pytest.raises(WeightsMismatchError, match=r"model\.matching\.enabled=true"):
        load_weights(regressing, checkpoint)
    assert not load_weights(regressing, folder).mismatch
    model.matching.pose_from = "head"
    assert_same_output(model, regressing)
