"""Outputs and gradients equal those of the public implementation."""

from __future__ import annotations

import numpy as np
import pytest
import roma
import torch

from coopmap.geometry import pose_from_quat_trans
from coopmap.models import MapAnything, priors
from coopmap.models.naming import canonical_names
from coopmap.types import Observation, Prediction

from .support import GOLDEN, GOLDEN_CONFIGS, golden_json, golden_model, load_config

MODES = {
    "images_only": {"rays": False, "depth": False, "pose": False},
    "rays_and_poses": {"rays": True, "depth": False, "pose": True},
    "all_geometry": {"rays": True, "depth": True, "pose": True},
}
OUTPUT_OF_FIELD = {
    "rays": "ray_directions",
    "depth": "depth_along_ray",
    "pose_trans": "cam_trans",
    "pose_quat": "cam_quats",
    "scale": "metric_scaling_factor",
    "confidence": "conf",
    "mask_logits": "non_ambiguous_mask_logits",
    "points_view": "pts3d_cam",
    "points_world": "pts3d",
}


def relative_quat_trans(inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Poses in view 0 with the sign that a product of the given quaternions has."""
    quat, trans = inputs["camera_pose_quats"], inputs["camera_pose_trans"]
    inverse = roma.quat_conjugation(quat[:, :1]).expand_as(quat)
    return roma.quat_product(inverse, quat), roma.quat_action(inverse, trans - trans[:, :1])


def observed(inputs: dict[str, torch.Tensor]) -> Observation:
    """What the golden run was given."""
    return Observation(
        images=inputs["img"],
        rays=inputs["ray_directions_cam"],
        depth_prior=inputs["depth_along_ray"][..., 0],
        pose_prior=pose_from_quat_trans(inputs["camera_pose_quats"], inputs["camera_pose_trans"]),
        depth_is_metric=inputs["is_metric_scale"],
        pose_is_metric=inputs["is_metric_scale"],
    )


def predict(name: str, mode: str, inputs: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch):
    model = golden_model(name, MODES[mode]).to(inputs["img"].device)
    # A rotation has two quaternions. Our model feeds the one with w >= 0, the golden run fed what its products gave.
    monkeypatch.setattr(priors, "pose_in_view0", lambda _: relative_quat_trans(inputs))
    return model, model(observed(inputs))


def objective(prediction: Prediction) -> torch.Tensor:
    """The scalar whose gradients are recorded: a sum over views of means over the rest."""
    per_view = (
        prediction.points_world.abs().mean(dim=(0, 2, 3, 4))
        + prediction.pose_quat[..., 0].mean(dim=0)
        + prediction.confidence.mean(dim=(0, 2, 3))
        + prediction.mask_logits.mean(dim=(0, 2, 3))
        + prediction.pose_trans.square().mean(dim=(0, 2))
    )
    return per_view.sum()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", GOLDEN_CONFIGS)
def test_outputs_and_gradients(name, mode, golden_inputs, monkeypatch):
    model, prediction = predict(name, mode, golden_inputs, monkeypatch)
    with np.load(GOLDEN / f"{name}.{mode}.npz") as expected:
        for field, output in OUTPUT_OF_FIELD.items():
            golden = expected[f"out/{output}"]
            value = getattr(prediction, field).detach().numpy()
            if field == "scale":
                assert np.ptp(golden, axis=1).max() == 0  # the same for every view
                golden = golden[:, 0, 0]
            golden = golden.reshape(value.shape)
            error = np.abs(value - golden).max() / np.abs(golden).max()
            assert error < 1e-4, f"{field}: {error}"
    expected = golden_json(f"{name}.{mode}.grads.json")
    scalar = objective(prediction)
    assert scalar.item() == pytest.approx(expected["scalar"], rel=1e-4)
    scalar.backward()
    norms = {canonical_names(model)[key]: value.grad.norm().item() for key, value in model.named_parameters()}
    for key, golden in expected["grad_norm"].items():
        if key in norms:
            assert norms[key] == pytest.approx(golden, rel=1e-3, abs=1e-7), key
        else:
            assert not golden, key  # the encoders that this mode leaves out


def test_quaternion_of_pose_prior_has_positive_w(golden_inputs):
    """What the golden test replaces agrees with the replacement up to the sign of the quaternion."""
    pose = pose_from_quat_trans(golden_inputs["camera_pose_quats"], golden_inputs["camera_pose_trans"])
    quat, trans = priors.pose_in_view0(pose)
    golden_quat, golden_trans = relative_quat_trans(golden_inputs)
    torch.testing.assert_close(quat, golden_quat * golden_quat[..., 3:].sign(), atol=2e-6, rtol=0)
    torch.testing.assert_close(trans, golden_trans, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["mapanything_v1", "mapanything_v11"])
def test_names_shapes_aliases_and_counts_equal_the_released_models(name):
    with torch.device("meta"):
        model = MapAnything(load_config(name, {"inputs": MODES["all_geometry"]}))
    golden = golden_json(f"{name}.parameters.json")
    aliases: dict[str, list[str]] = {}
    for alias, canonical in canonical_names(model).items():
        aliases.setdefault(canonical, []).append(alias)
    state = model.state_dict()
    ours = {key: {"shape": list(state[key].shape), "aliases": sorted(names)} for key, names in aliases.items()}
    assert ours == golden["parameters"]
    assert sum(parameter.numel() for parameter in model.parameters()) == golden["num_parameters"]
    for child, count in golden["submodules"].items():
        if count:
            assert sum(parameter.numel() for parameter in getattr(model, child).parameters()) == count, child
