"""What an export says of a model: names, configuration, and what it refuses."""

import json
from dataclasses import fields
from typing import Any

import pytest
import torch

from coopmap.models import MapAnything
from coopmap.models.upstream import NotUpstreamError, released_tensors, upstream_config

from .support import ALL_INPUTS, golden_json, load_config, stand_in


@pytest.mark.parametrize("choice", ["mapanything_v1", "mapanything_v11"])
def test_names_of_an_export_are_those_of_the_release(choice):
    with torch.device("meta"):
        tensors, _ = released_tensors(MapAnything(load_config(choice, ALL_INPUTS)))
    golden = golden_json(f"{choice}.parameters.json")["parameters"]
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == {name: facts["shape"] for name, facts in golden.items()}


def test_names_shapes_and_aliases_add_up_to_the_size_of_the_released_file():
    with torch.device("meta"):
        tensors, aliases = released_tensors(MapAnything(load_config("mapanything_v11", ALL_INPUTS)))
    header: dict[str, Any] = {"__metadata__": aliases}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    length = len(json.dumps(header, separators=(",", ":")))
    padded = length + -length % 8
    assert 8 + padded + end == 4_914_062_480  # bytes of both V1.1 releases


UNICEPTION_DEFAULTS = {
    "dim": 768,
    "num_heads": 12,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "qk_norm": False,
    "init_values": None,
    "pretrained_checkpoint_path": None,
    "layer_dims": [96, 192, 384, 768],
    "hidden_dim": 196,
    "use_register_tokens_from_encoder": False,
    "info_sharing_mlp_layer_str": "mlp",
    "torch_hub_force_reload": False,
}


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


@pytest.mark.parametrize("choice", ["mapanything_v1", "mapanything_v11"])
def test_configuration_is_upstreams(choice):
    golden = flat(golden_json(f"{choice}.config.json"))
    ours = flat(upstream_config(load_config(choice)))
    del golden["info_sharing_config.module_args.name"]  # a label
    assert {name: ours[name] for name in golden} == golden
    further = {name.rpartition(".")[2]: value for name, value in ours.items() if name not in golden}
    assert further.pop("name").startswith("aat_")
    assert further == {name: UNICEPTION_DEFAULTS[name] for name in further}


def test_tiny_model_is_refused_with_every_reason():
    with pytest.raises(NotUpstreamError) as error:
        upstream_config(load_config("mapanything_tiny"))
    for key in ("encoder.dim=192", "encoder.pos_embed_grid=24", "encoder.layer_scale=null", "heads.pose_dim=192"):
        assert f"model.{key}: " in str(error.value)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"encoder": {"num_registers": 4}}, "encoder.num_registers=4"),
        ({"encoder": {"depth": 25}}, "encoder.depth=25"),
        ({"encoder": {"mlp": "swiglu"}}, "encoder.mlp=swiglu"),
        ({"encoder": {"num_heads": 8}}, "encoder.num_heads=8"),
    ],
)
def test_encoders_that_dinov2_does_not_have_are_refused(change, key):
    with pytest.raises(
        NotUpstreamError, match=rf"upstream cannot build model=mapanything_v1:\n  model\.{key}: [^\n]*$"
    ):
        upstream_config(load_config("mapanything_v1", change))


REFUSED = (
    "model.heads.circular=true",
    "model.encoder.circular=true model.encoder.stem=conv model.encoder.patch_size=16 data.panorama.height=256 "
    "data.panorama.width=1024",
    "model.encoder.patch_size=7",
    "model.rig_constraint=true data.layout=cameras",
    "model.view_embedding=true data.layout=cameras",
    "model.spherical_encoding=true",
    "model.matching.enabled=true",
    "model.matching.enabled=true model.pose_from=alignment",
    "model.inputs.rig=true",
    "model.inputs.pose=true model.pose_correction=true",
    "model.inputs.pose=true model.pose_update=true",
    "model/fusion=mean data.layout=grouped model.fusion.directions=false",
    "model/fusion=concat data.layout=warped",
)
"""Whatever changes the answer and upstream lacks, with and without parameters of its own."""

CARRIED = {
    "encoder": {"dim", "depth", "num_heads", "mlp", "final_norm", "layer_scale", "mlp_ratio", "patch_size"}
    | {"pos_embed_grid", "num_registers"},  # named, or fixed to what upstream has
    "info_sharing": {"dim", "depth", "num_heads", "mlp_ratio", "mlp", "layer_scale", "intermediate_layers"}
    | {"encoder_tokens", "mark_reference"},
    "heads": {"layer_dims", "feature_dim", "pose_dim", "scale_dim"},
    "inputs": {"rays", "depth", "pose", "map_dims"},
}
"""Keys that ``config.json`` says, or that are refused unless upstream has the same value."""
OTHER_PARTS = {"encoder": {"stem", "circular"}, "heads": {"circular"}, "inputs": {"rig"}}
WITHOUT_INFLUENCE = {"heads": {"initial_scale_m"}}  # the start of a weight
WHOLE = {"fusion", "ground_range", "matching", "rig_constraint", "view_embedding", "pose_correction", "pose_update"}
WHOLE |= {"spherical_encoding", "plucker", "pose_from"}
NEITHER = {"name", "checkpointing", "initialization", "weights", "weights_only_submodules", "compile"}


@pytest.mark.parametrize("overrides", REFUSED)
def test_what_changes_the_answer_without_upstreams_knowing_is_refused(overrides):
    config = stand_in(*overrides.split())
    keys = [override.partition("=")[0] for override in overrides.split()]
    keys = [key for key in keys if not key.startswith(("data.", "model.inputs.pose", "model.fusion."))]
    with pytest.raises(NotUpstreamError) as error:
        upstream_config(config.model)
    assert all(f"{key.replace('/fusion', '.fusion.kind')}=" in str(error.value) for key in keys)


def test_other_widths_of_the_encoders_of_maps_are_said():
    """Under the name of the argument of UniCeption's ``DenseRepresentationEncoder``."""
    encoders = upstream_config(stand_in("model.inputs.map_dims=[8,16,24]").model)["geometric_input_config"]
    for label in ("ray_dirs", "depth"):
        assert encoders[f"{label}_encoder_config"]["intermediate_dims"] == [8, 16, 24]


def test_every_key_of_the_model_is_exported_refused_or_without_influence():
    """A key that is added has to be sorted in here, and refused or written by the export."""
    defaults = stand_in().model
    assert {field.name for field in fields(defaults)} == {*CARRIED} | WHOLE | NEITHER
    for part, known in CARRIED.items():
        names = {field.name for field in fields(getattr(defaults, part))}
        assert names == known | OTHER_PARTS.get(part, set()) | WITHOUT_INFLUENCE.get(part, set()), part
