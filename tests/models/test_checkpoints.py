from __future__ import annotations

import argparse
import builtins
import contextlib
import functools
import hashlib
import json
import logging
import operator
import os
import pickle
import shutil
import socket
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from coopmap.models import MapAnything, hub, load_weights
from coopmap.models.checkpoints import WeightsMismatchError
from coopmap.models.hub import EncoderKind, Release
from coopmap.models.naming import canonical_names
from coopmap.models.sources import read_record
from coopmap.models.torchfile import TorchFile

from .support import load_config, make_observation

MICRO = {
    "encoder": {"dim": 32, "depth": 2, "num_heads": 2, "pos_embed_grid": 6},
    "info_sharing": {"dim": 32, "depth": 3, "num_heads": 2, "intermediate_layers": [0, 1]},
    "heads": {"layer_dims": [8, 8, 8, 8], "feature_dim": 8, "pose_dim": 16, "scale_dim": 16},
}


def micro(seed: int, **changes: dict) -> MapAnything:
    torch.manual_seed(seed)
    return MapAnything(load_config("mapanything_tiny", MICRO, changes))


@pytest.fixture
def trained() -> MapAnything:
    return micro(1)


@pytest.fixture
def model() -> MapAnything:
    return micro(2)


@torch.no_grad()
def assert_same_output(first: MapAnything, second: MapAnything) -> None:
    observation = make_observation(1, 2)
    torch.testing.assert_close(first(observation).points_world, second(observation).points_world, rtol=0, atol=0)


def first_names(model: MapAnything) -> dict[str, torch.Tensor]:
    """A state dict as released files hold it: each tensor once."""
    state = model.state_dict()
    return {name: state[name].contiguous() for name in sorted(set(canonical_names(model).values()))}


def write(form: str, model: MapAnything, folder: Path) -> Path:
    path = folder / f"{form}.pth"
    match form:
        case "all_aliases":
            torch.save(model.state_dict(), path)
        case "first_aliases":
            torch.save(first_names(model), path)
        case "upstream_training":
            args = OmegaConf.create({"model": {"size": "large"}, "lr": 1e-4})
            torch.save({"args": args, "cli": argparse.Namespace(epoch=3), "model": model.state_dict()}, path)
        case "lightning":
            state = {f"model.{name}": value for name, value in model.state_dict().items()}
            optimizer = torch.optim.AdamW(model.parameters())
            torch.save(
                {
                    "state_dict": state | {"loss.weight": torch.ones(1)},
                    "optimizer_states": [optimizer.state_dict()],
                    "hyper_parameters": OmegaConf.create({"a": 1}),
                },
                path,
            )
        case "ddp_compiled":
            names = {name: f"module._orig_mod.{name}" for name in model.state_dict()}
            torch.save({names[name]: value for name, value in model.state_dict().items()}, path)
        case "safetensors":
            path = path.with_suffix(".safetensors")
            save_file(first_names(model), path)
        case "folder":
            path = folder / "release"
            path.mkdir()
            save_file(first_names(model), path / "model.safetensors")
            (path / "README.md").write_text("---\nlibrary_name: pytorch\nlicense: apache-2.0\n---\n# Title\n")
    return path


FORMS = [
    "all_aliases",
    "first_aliases",
    "upstream_training",
    "lightning",
    "ddp_compiled",
    "safetensors",
    "folder",
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_loads_strictly_and_gives_the_same_output(trained, model, tmp_path, form):
    report = load_weights(model, write(form, trained, tmp_path))
    assert not report.mismatch
    assert report.num_parameters == sum(value.numel() for value in first_names(trained).values())
    assert len(report.sha256) == 64
    assert_same_output(model, trained)
    assert model.dpt_feature_head.scratch.layer1_rn.weight is model.dense_head[0].input_process[0][1].weight


def test_state_dict_loads(trained, model):
    load_weights(model, trained.state_dict())
    assert_same_output(model, trained)


def test_model_on_the_meta_device_is_filled(trained, tmp_path):
    with torch.device("meta"):
        model = MapAnything(trained.cfg)
    load_weights(model, write("upstream_training", trained, tmp_path))
    assert_same_output(model, trained)


def test_half_precision_weights_become_float32(trained, model):
    load_weights(model, {name: value.half() for name, value in trained.state_dict().items()})
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(model.scale_token, trained.scale_token, rtol=1e-3, atol=1e-5)


def test_license_and_ignored_objects_are_reported(trained, model, tmp_path):
    assert load_weights(model, write("folder", trained, tmp_path)).license == "apache-2.0"
    report = load_weights(model, write("upstream_training", trained, tmp_path))
    assert {"omegaconf.dictconfig.DictConfig", "argparse.Namespace"} <= set(report.ignored)


def test_encoders_of_inputs_that_are_left_out_are_reported_not_errors(model):
    inputs = {"rays": True, "depth": True, "pose": True}
    whole = micro(1, inputs=inputs)
    report = load_weights(model, whole.state_dict())
    assert report.left_out == (
        "cam_rot_encoder",
        "cam_trans_encoder",
        "cam_trans_scale_encoder",
        "depth_encoder",
        "depth_scale_encoder",
        "ray_dirs_encoder",
    )
    torch.testing.assert_close(model.scale_token, whole.scale_token)


@torch.no_grad()
def test_weights_of_images_alone_start_a_model_with_inputs_that_at_first_answers_as_it_did(model):
    whole = micro(1, inputs={"rays": True, "depth": True, "pose": True, "rig": True}, pose_correction=True).eval()
    assert not load_weights(whole, model.state_dict()).mismatch
    observation = make_observation(1, 2, 28, 42)
    given = replace(
        observation,
        depth_prior=torch.rand(1, 2, 28, 42),
        pose_prior=torch.eye(4).repeat(1, 2, 1, 1),
        rig_pose=torch.eye(4).repeat(1, 2, 1, 1),
    )
    torch.testing.assert_close(whole(given).depth, model.eval()(observation).depth, rtol=1e-6, atol=1e-6)
    incomplete = {name: value for name, value in whole.state_dict().items() if name != "depth_encoder.norm_layer.bias"}
    with pytest.raises(WeightsMismatchError, match=r"missing \(1\):\n  depth_encoder.norm_layer.bias"):
        load_weights(whole, incomplete)


def test_parts_that_public_models_lack_may_be_missing_as_a_whole(trained, model):
    for each in (trained, model):
        each.view_fusion = torch.nn.Linear(2, 2)
    before = model.view_fusion.weight.clone()
    public = {name: value for name, value in trained.state_dict().items() if not name.startswith("view_fusion.")}
    assert not load_weights(model, public).mismatch
    assert torch.equal(model.view_fusion.weight, before)
    with pytest.raises(WeightsMismatchError, match=r"missing \(1\):\n  view_fusion\.bias"):
        load_weights(model, public | {"view_fusion.weight": before})
    load_weights(model, trained.state_dict())
    assert torch.equal(model.view_fusion.weight, trained.view_fusion.weight)


def test_mismatch_lists_names_with_the_nearest_and_leaves_the_model_alone(trained, model):
    state = trained.state_dict()
    state["pose_head.fc_trans.weight"] = state.pop("pose_head.fc_t.weight")
    state["scale_token"] = torch.zeros(16)
    before = model.encoder.model.cls_token.clone()
    with pytest.raises(WeightsMismatchError) as error:
        load_weights(model, state)
    message = str(error.value)
    assert "missing (1):\n  pose_head.fc_t.weight (nearest: pose_head.fc_trans.weight)" in message
    assert "unexpected (1):\n  pose_head.fc_trans.weight (nearest: pose_head.fc_t.weight)" in message
    assert "wrongly shaped (1):\n  scale_token: 16, the model has 32" in message
    assert torch.equal(model.encoder.model.cls_token, before)

    report = load_weights(model, state, strict=False)
    assert report.mismatch.misshaped == ["scale_token"]
    assert torch.equal(model.encoder.model.cls_token, trained.encoder.model.cls_token)


def test_wrong_architecture_is_named(trained):
    other = micro(2, encoder={"dim": 48, "depth": 1})
    with pytest.raises(WeightsMismatchError, match=r"has 2 blocks of width 32, model\.encoder 1 blocks of width 48"):
        load_weights(other, trained.state_dict())


def test_conflicting_values_under_two_names_are_refused(trained, model):
    state = trained.state_dict()
    state["dpt_regressor_head.conv1.bias"] = state["dpt_regressor_head.conv1.bias"] + 1
    with pytest.raises(WeightsMismatchError, match="two values"):
        load_weights(model, state)


def test_only_chosen_submodules_load(trained, model):
    before = model.pose_head.fc_t.weight.clone()
    state = {name: value for name, value in trained.state_dict().items() if not name.startswith("dense_head.")}
    report = load_weights(model, state, submodules=["encoder", "dense_head"])
    assert not report.mismatch
    assert torch.equal(model.pose_head.fc_t.weight, before)
    assert torch.equal(model.encoder.model.cls_token, trained.encoder.model.cls_token)
    assert torch.equal(model.dense_head[1].conv1.weight, trained.dense_head[1].conv1.weight)
    with pytest.raises(ValueError, match="did you mean pose_head"):
        load_weights(model, state, submodules=["posehead"])


def backbone(depth: int) -> dict[str, torch.Tensor]:
    """An official DINOv2 file: bare names, a mask token, a final norm."""
    encoder = {"depth": depth, "final_norm": True, "layer_scale": 1.0}
    whole = micro(3, encoder=encoder)
    return whole.encoder.model.state_dict() | {"mask_token": torch.zeros(1, 32)}


def test_dinov2_backbone_fills_the_encoder_alone():
    model = micro(2, encoder={"layer_scale": 1.0, "depth": 2})
    before = model.info_sharing.norm.weight.clone()
    state = backbone(depth=2)
    state["norm.weight"] = torch.full((32,), 3.0)
    report = load_weights(model, state)
    assert not report.mismatch
    assert report.left_out == ()
    assert torch.equal(model.encoder.model.norm.weight, state["norm.weight"])
    assert torch.equal(model.info_sharing.norm.weight, before)


def test_later_blocks_of_a_backbone_start_the_multi_view_transformer():
    encoder = {"layer_scale": 1.0, "final_norm": False}
    model = micro(2, encoder=encoder, info_sharing={"layer_scale": 1e-5})
    state = backbone(depth=5)
    report = load_weights(model, state)
    assert not report.mismatch
    blocks = model.info_sharing.self_attention_blocks
    assert torch.equal(blocks[0].attn.qkv.weight, state["blocks.2.attn.qkv.weight"])
    assert torch.equal(blocks[2].ls2.gamma, state["blocks.4.ls2.gamma"])
    assert torch.equal(model.encoder.model.blocks[1].mlp.fc1.weight, state["blocks.1.mlp.fc1.weight"])
    shallow = load_weights(micro(2, encoder=encoder), state)
    assert shallow.left_out == (
        "encoder.model.blocks.2",
        "encoder.model.blocks.3",
        "encoder.model.blocks.4",
        "encoder.model.norm",
    )


def test_a_backbone_that_is_too_shallow_is_refused(model):
    model = micro(2, encoder={"layer_scale": 1.0})
    with pytest.raises(WeightsMismatchError, match=r"encoder\.model\.blocks\.1\.attn"):
        load_weights(model, backbone(depth=1))


@pytest.mark.parametrize("source", ["missing.pth", "runs/missing/last.ckpt", "/nowhere/at/all"])
def test_absent_path_is_named_and_never_looked_up_on_the_hub(model, source):
    with pytest.raises(FileNotFoundError, match=source):
        load_weights(model, source)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint" * 100, "truncated"])
def test_damaged_file_is_named(trained, model, tmp_path, content):
    path = tmp_path / "last.ckpt"
    if content == "truncated":
        torch.save(trained.state_dict(), path)
        content = path.read_bytes()[:-5000]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"last\.ckpt"):
        load_weights(model, path)


def test_file_without_tensors_is_refused(model, tmp_path):
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="holds no tensors"):
        load_weights(model, tmp_path / "empty.pth")


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *args):
        self.reduced = (function, args)

    def __reduce__(self):
        return self.reduced


class CallWithState(Call):
    """Pickles as a call whose result then gets a state."""

    def __init__(self, function, *args, state):
        self.reduced = (function, args, state)


class CallChain(Call):
    """Pickles as a call of ``functools.partial(os.system)``, itself the result of a call."""

    def __init__(self, command):
        self.reduced = (operator.call, (Call(functools.partial, os.system), command))


PAYLOADS = {
    "os.system": lambda marker: Call(os.system, f"touch {marker}"),
    "eval": lambda marker: Call(builtins.eval, f"open({str(marker)!r}, 'w')"),
    "exec in a state": lambda marker: CallWithState(
        OrderedDict, state={"x": Call(exec, f"open({str(marker)!r}, 'w')")}
    ),
    "call of the result of a call": lambda marker: CallChain(f"touch {marker}"),
    "through torch": lambda marker: Call(torch._tensor._rebuild_from_type_v2, os.system, int, (f"touch {marker}",), {}),
}


@pytest.mark.parametrize("payload", PAYLOADS)
def test_planted_code_never_runs(trained, model, tmp_path, payload):
    marker = tmp_path / "ran"
    path = tmp_path / "planted.pth"
    torch.save({"model": trained.state_dict(), "args": PAYLOADS[payload](marker)}, path)
    torch.load(path, weights_only=False)
    assert marker.exists()  # the payload works, on those who let it
    marker.unlink()
    load_weights(model, path)
    assert not marker.exists()
    assert_same_output(model, trained)


def raw_archive(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", bytes(64))
    return path


@pytest.mark.parametrize(
    "pickled",
    [
        b"cos\nsystem\n(S'touch ran'\ntR.",
        b"(S'touch ran'\nios\nsystem\n.",  # INST
        b"\x80\x02c__builtin__\neval\n(X\x01\x00\x00\x001tR.",
        b"\x80\x02ccoopmap.models.torchfile\nInert\nN}X\x03\x00\x00\x00addK\x01s\x86b.",  # changes a class
        b"\x80\x02ccollections\nOrderedDict\nN}X\x03\x00\x00\x00addK\x01s\x86b.",
        b"\x80\x02\x82\x01.",  # extension registry
    ],
)
def test_hostile_opcodes_are_inert_or_refused(tmp_path, pickled, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = raw_archive(tmp_path / "hostile.pth", pickled)
    with contextlib.suppress(ValueError):
        TorchFile(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["hostile.pth"]


def test_tensor_description_cannot_reach_outside_its_storage(tmp_path):
    torch.save({"w": torch.arange(4.0)}, tmp_path / "good.pth")
    with zipfile.ZipFile(tmp_path / "good.pth") as good:
        pickled = good.read("good/data.pkl")
    assert pickled.count(b"K\x04") >= 2  # number of elements, and the only size
    path = raw_archive(tmp_path / "bad.pth", pickled.replace(b"K\x04\x85", b"K\x7f\x85"))
    file = TorchFile(path)
    with pytest.raises(ValueError, match=r"bad\.pth: damaged tensor"):
        file.tensor(file.content["w"])


def test_strides_dtypes_and_sharing_survive(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    saved = {
        "transposed": base.T,
        "part": base[1:, 2:4],
        "bfloat16": base.bfloat16(),
        "bool": base > 3,
        "long": torch.arange(3),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(base + 1),
    }
    torch.save(saved, tmp_path / "tensors.pth")
    file = TorchFile(tmp_path / "tensors.pth")
    assert set(file.content) == set(saved)
    for name, expected in saved.items():
        tensor = file.tensor(file.content[name])
        assert tensor.dtype == expected.dtype
        assert torch.equal(tensor, expected), name
    assert file.tensor(file.content["transposed"]).stride() == base.T.stride()
    assert file.ignored == frozenset()


def test_the_reader_agrees_with_pickle_on_containers(tmp_path):
    content = {"list": [1, 2.5, "x", None, True], "nested": {"tuple": (1, (2,))}, 3: b"bytes"[:0]}
    torch.save(content, tmp_path / "containers.pth")
    reread = TorchFile(tmp_path / "containers.pth").content
    assert {key: reread[key] for key in ("list", "nested")} == {key: content[key] for key in ("list", "nested")}
    assert pickle.loads(pickle.dumps(reread["list"])) == content["list"]


# No network


@pytest.fixture
def no_network(monkeypatch):
    """Every connection and every use of torch hub is an error."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a connection was tried")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("load", "load_state_dict_from_url", "download_url_to_file"):
        monkeypatch.setattr(torch.hub, name, refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("form", FORMS)
def test_a_local_path_needs_no_network(trained, model, tmp_path, form):
    load_weights(model, write(form, trained, tmp_path))
    assert torch.equal(model.scale_token, trained.scale_token)


# Weights on the hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of huggingface_hub, offline."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put_on_hub(cache: Path, repo: str, model: MapAnything, license: str | None = "cc-by-nc-4.0", **encoder) -> str:
    """Put a release into the cache as the newest of its repository.

    Returns:
        The hash of its weights.
    """
    repository = cache / f"models--{repo.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    save_file(first_names(model), snapshot / "model.safetensors")
    if encoder:
        (snapshot / "config.json").write_text(json.dumps({"encoder_config": encoder, "vmax": float("inf")}))
    if license:
        (snapshot / "README.md").write_text(f"---\nlicense: {license}\n---\n")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    return hashlib.sha256((snapshot / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.usefixtures("no_network")
def test_a_known_hub_name_is_pinned_to_its_revision(trained, model, hub_cache, monkeypatch, caplog):
    sha256 = put_on_hub(hub_cache, "facebook/map-anything", trained)
    (hub_cache / "models--facebook--map-anything/refs/main").write_text("f" * 40)  # has moved on
    release = Release(EncoderKind(2, 32), "cc-by-nc-4.0", COMMIT, sha256)
    monkeypatch.setitem(hub.RELEASES, "facebook/map-anything", release)
    with caplog.at_level(logging.INFO, logger="coopmap"):
        report = load_weights(model, "facebook/map-anything")
    assert (report.source, report.revision, report.sha256) == ("facebook/map-anything", COMMIT, sha256)
    assert report.license == "cc-by-nc-4.0"
    assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert_same_output(model, trained)


@pytest.mark.usefixtures("no_network")
def test_other_content_at_a_pinned_revision_is_refused(trained, model, hub_cache, monkeypatch):
    put_on_hub(hub_cache, "facebook/map-anything", trained)
    monkeypatch.setitem(hub.RELEASES, "facebook/map-anything", Release(EncoderKind(2, 32), "x", COMMIT, "0" * 64))
    with pytest.raises(ValueError, match=r"model\.safetensors: not the weights .* expected 0000"):
        load_weights(model, "facebook/map-anything")


@pytest.mark.usefixtures("no_network")
def test_an_unpinned_name_warns_with_what_to_write(trained, model, hub_cache, caplog):
    put_on_hub(hub_cache, "someone/finetuned", trained, license=None)
    with caplog.at_level(logging.WARNING, logger="coopmap"):
        report = load_weights(model, "someone/finetuned")
    assert f"use model.weights=someone/finetuned@{COMMIT}" in caplog.text
    assert report.license is None
    caplog.clear()
    load_weights(model, f"someone/finetuned@{COMMIT}")
    assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("source", ["facebook/map-anything", f"someone/finetuned@{COMMIT}", "someone/finetuned"])
def test_offline_without_a_copy_says_what_to_do(model, hub_cache, source):
    with pytest.raises(FileNotFoundError) as error:
        load_weights(model, source, submodules=["pose_head"])
    message = str(error.value)
    assert f"model.weights={source}" in message
    assert f"hf download {source.partition('@')[0]}" in message
    assert "HF_HUB_OFFLINE" in message
    assert "model.weights=FOLDER" in message


def test_another_encoder_is_refused_before_the_weights_are_downloaded(trained, model, hub_cache, monkeypatch):
    asked = []

    def download(repo, name, revision=None):
        asked.append(name)
        return str(hub_cache / f"models--someone--giant/snapshots/{COMMIT}" / name)

    put_on_hub(hub_cache, "someone/giant", trained, size="giant", keep_first_n_layers=24)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    expected = (
        r"24 blocks of width 1536 \(ViT-g\), model\.encoder 2 blocks of width 32 \(choose model=mapanything_v11\)"
    )
    with pytest.raises(WeightsMismatchError, match=expected):
        load_weights(model, "someone/giant")
    assert asked == ["config.json"]
    load_weights(model, "someone/giant", submodules=["pose_head"])
    assert torch.equal(model.pose_head.fc_t.weight, trained.pose_head.fc_t.weight)


@pytest.mark.parametrize(
    ("repo", "choice", "license"),
    [
        ("facebook/map-anything", "mapanything_v11", "cc-by-nc-4.0"),
        ("facebook/map-anything-apache", "mapanything_v11", "apache-2.0"),
        ("facebook/map-anything-v1", "mapanything_v1", "cc-by-nc-4.0"),
        ("facebook/map-anything-apache-v1", "mapanything_v1", "apache-2.0"),
    ],
)
def test_table_of_releases_agrees_with_the_model_choices(repo, choice, license):
    release, encoder = hub.RELEASES[repo], load_config(choice).encoder
    assert release.encoder == (encoder.depth, encoder.dim)
    assert hub.MODELS[release.encoder] == choice
    assert release.license == license
    assert (release.revision is None) == (release.sha256 is None)
    assert release.revision is None or hub.COMMIT.fullmatch(release.revision)


# What does not fit


def test_config_beside_the_weights_helps_to_name_the_mismatch(trained, tmp_path):
    folder = write("folder", trained, tmp_path)
    (folder / "config.json").write_text(json.dumps({"encoder_config": {"encoder_str": "dinov2", "size": "large"}}))
    other = micro(2, encoder={"dim": 48, "depth": 1})
    with pytest.raises(WeightsMismatchError) as error:
        load_weights(other, folder)
    headline = str(error.value).splitlines()[0]
    assert "its encoder has 2 blocks of width 32, model.encoder 1 blocks of width 48" in headline
    assert "its config.json says dinov2 large" in headline
    count = sum(value.numel() for value in first_names(trained).values())
    assert f"{count / 1e6:.1f} M parameters, the model has" in headline


def test_a_lenient_load_warns_of_another_encoder(trained, caplog):
    with caplog.at_level(logging.WARNING, logger="coopmap"):
        load_weights(micro(2, encoder={"dim": 48, "depth": 1}), trained.state_dict(), strict=False)
    assert "its encoder has 2 blocks of width 32, model.encoder 1 blocks of width 48" in caplog.text
    assert "loading what fits" in caplog.text


def test_a_damaged_safetensors_file_is_named(trained, model, tmp_path):
    path = write("safetensors", trained, tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"safetensors\.safetensors: not a safetensors file, or damaged"):
        load_weights(model, path)


# Where weights came from


def test_record_is_plain_and_survives_the_safe_loader(trained, model, tmp_path):
    record = load_weights(model, write("folder", trained, tmp_path), submodules=["encoder"]).record()
    torch.save(record, tmp_path / "record.pt")
    assert torch.load(tmp_path / "record.pt", weights_only=True) == record
    assert json.loads(json.dumps(record)) == record
    assert record["license"] == "apache-2.0"
    assert record["submodules"] == ["encoder"]
    assert record["num_parameters"] == sum(value.numel() for value in trained.encoder.parameters())
    assert record["missing"] == []


def test_weights_trained_from_others_carry_their_record(trained, model, tmp_path):
    base = load_weights(model, write("folder", trained, tmp_path)).record()
    state = {f"model.{name}": value for name, value in trained.state_dict().items()}
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": state, "global_step": 3, "coopmap": {"config": "", "weights": base}}, path)
    report = load_weights(model, path)
    assert report.license == "apache-2.0"
    assert report.base == base
    assert read_record(path) == base


def test_a_record_with_anything_but_plain_values_is_defused(trained, tmp_path):
    path = tmp_path / "planted.ckpt"
    planted = {"license": Call(os.system, "true"), "source": torch.ones(2), "left_out": ["a", {"b": object}]}
    torch.save({"state_dict": trained.state_dict(), "coopmap": {"weights": planted}}, path)
    assert read_record(path) == {"license": None, "source": None, "left_out": ["a", {"b": None}]}


# Memory


def mapped_file(tensor: torch.Tensor) -> str:
    """The file that a tensor's memory is mapped from, or an empty text."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(address, 16) for address in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < end:
            return "".join(line.split()[5:6])
    return ""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs a Linux /proc")
@pytest.mark.parametrize("form", ["safetensors", "upstream_training"])
def test_a_model_on_the_meta_device_takes_the_files_memory_and_leaves_the_file_alone(trained, tmp_path, form):
    path = write(form, trained, tmp_path)
    before = path.read_bytes()
    with torch.device("meta"):
        model = MapAnything(trained.cfg)
    load_weights(model, path)
    assert {Path(mapped_file(value)) for value in model.state_dict().values()} == {path}
    with torch.no_grad():
        model.scale_token.add_(1)
    assert path.read_bytes() == before


def test_weights_stay_valid_when_their_file_is_deleted(trained, tmp_path):
    folder = write("folder", trained, tmp_path)
    with torch.device("meta"):
        model = MapAnything(trained.cfg)
    load_weights(model, folder)
    shutil.rmtree(folder)
    assert_same_output(model, trained)
