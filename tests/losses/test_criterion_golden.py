"""The published criteria, as shipped, give upstream's numbers."""

from dataclasses import replace

import pytest
import torch

from coopmap.losses import Criterion

CRITERIA = {
    "overall_train": ("overall", True, {}),
    "overall_test": ("overall", False, {}),
    "opv2v_pose_train": ("pose", True, {}),
    "opv2v_pose_test": ("pose", False, {}),
    "pairwise_only_test": ("pose", False, {"pose_terms": "pairwise"}),
    "overall_loss_highpm_plus_rel_pose_train": ("v11", True, {}),
    "overall_loss_highpm_plus_rel_pose_test": ("v11", False, {}),
    "overall_loss_highpm_plus_rel_pose_no_conf_train": ("v11", True, {"confidence_alpha": None}),
    "overall_loss_highpm_plus_rel_pose_no_conf_test": ("v11", False, {"confidence_alpha": None}),
    "overall_loss_highpm_plus_rel_pose_no_conf_no_ref_view_train": ("relative", True, {"confidence_alpha": None}),
    "overall_loss_highpm_plus_rel_pose_no_conf_no_ref_view_test": ("relative", False, {"confidence_alpha": None}),
    "overall_loss_highpm_rel_pose_no_ref_view_train": ("relative", True, {}),
    "overall_loss_highpm_rel_pose_no_ref_view_test": ("relative", False, {}),
}
"""Upstream's name: the shipped choice, whether in training mode, and changes to the choice."""

UPSTREAM_NAMES = {
    "cam_trans": "pose_trans",
    "cam_quats": "pose_quat",
    "depth_along_ray": "depth",
    "ray_directions": "rays",
    "metric_scaling_factor": "scale",
    "conf": "confidence",
    "non_ambiguous_mask_logits": "mask_logits",
    "pts3d": "points_world",
    "pts3d_cam": "points_view",
}


@pytest.fixture
def criterion(name, load):
    choice, training, changes = CRITERIA[name]
    return Criterion(replace(load(choice), view_scaling=False, **changes)).train(training)


def test_every_criterion_is_covered(expected):
    assert CRITERIA.keys() == expected.keys()


@pytest.mark.parametrize("name", CRITERIA)
def test_total_and_every_logged_term(name, criterion, expected, golden_prediction, golden_target):
    total, terms = criterion(golden_prediction, golden_target)
    torch.testing.assert_close(total.item(), expected[name]["loss"], rtol=1e-4, atol=0)
    details = {key.split("_", 1)[1]: value for key, value in expected[name]["details"].items()}
    assert terms.keys() == details.keys()
    torch.testing.assert_close({key: value.item() for key, value in terms.items()}, details, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", CRITERIA)
def test_gradient_norms_of_every_prediction(name, criterion, expected, golden_prediction, golden_target):
    num_views = golden_target.depth.shape[1]
    # One scale per view, as upstream passes it, so that the gradient can be told apart by view.
    scale = golden_prediction.scale[:, None].repeat(1, num_views)
    leaves = {name: value for name, value in vars(golden_prediction).items() if value is not None}
    leaves = {key: value.clone().requires_grad_() for key, value in (leaves | {"scale": scale}).items()}
    total, _ = criterion(type(golden_prediction)(**leaves), golden_target)
    gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    for (key, leaf), gradient in zip(leaves.items(), gradients, strict=True):
        gradient = torch.zeros_like(leaf) if gradient is None else gradient
        norms = gradient.transpose(0, 1).flatten(1).norm(dim=1).tolist()
        upstream_name = next(name for name, ours in UPSTREAM_NAMES.items() if ours == key)
        torch.testing.assert_close(norms, expected[name]["grad_norm_per_view"][upstream_name], rtol=1e-3, atol=1e-8)
