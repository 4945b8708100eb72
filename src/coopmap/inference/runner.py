"""One forward pass and its post-processing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from coopmap.config.infer import InferenceOptions
from coopmap.geometry.calibration import PanoramaCalibration, PinholeCalibration, fit_panorama, fit_pinhole
from coopmap.geometry.edges import confident, flying_pixels
from coopmap.geometry.se3 import invert, pose_from_quat_trans, transform_points
from coopmap.models.placement import as_matched
from coopmap.models.precision import computes_bf16
from coopmap.types import Observation, Prediction

ENOUGH_SHARE = 0.05
"""Of a view's pixels, to fit a camera to."""


@dataclass(frozen=True, eq=False)
class Inference:
    """Result for one set of views, on the CPU, float32; lengths in meters.

    Attributes:
        prediction: the model's raw prediction, a batch of one.
        rays: unit rays in each view's frame, on which the points are: as predicted, or the calibrated ones if the model
            matches on these.
        depth: range along the rays.
        pose: ``T_view0_view``; the identity for view 0.
        points_world: points in the frame of view 0.
        confidence: at least 1.
        mask: pixels to believe.
        non_ambiguous: pixels that the model says show something.
        camera: intrinsics of perspective views, or parameters of panoramas, recovered from ``rays``; ``None`` for
            mosaics, whose rays are seen from the middle of the car and fit no one camera.
        rays_from: ``prediction`` or ``calibration``.
    """

    prediction: Prediction
    rays: Float[Tensor, "v h w 3"]
    depth: Float[Tensor, "v h w"]
    pose: Float[Tensor, "v 4 4"]
    points_world: Float[Tensor, "v h w 3"]
    confidence: Float[Tensor, "v h w"]
    mask: Bool[Tensor, "v h w"]
    non_ambiguous: Bool[Tensor, "v h w"]
    camera: PinholeCalibration | PanoramaCalibration | None
    rays_from: str = "prediction"


def infer(
    model: nn.Module | Callable[[Observation], Prediction],
    observation: Observation,
    options: InferenceOptions | None = None,
    covered: Bool[Tensor, "v h w"] | None = None,
) -> Inference:
    """Run a model on one set of views and post-process its prediction.

    Poses and points are given relative to view 0 as predicted: the model's own pose of view 0, close to the identity
    in a trained one, is divided out. Points are on the rays on which the model matches: then they fit its poses.

    Args:
        model: on any device; it is put into evaluation mode.
        observation: of one sample, without batch dimension, as datasets give it.
        options: see :class:`InferenceOptions`.
        covered: pixels of panoramas that some camera shows; others are left out, whatever the model predicts.

    Raises:
        ValueError: if the observation has a batch dimension, or the image size does not suit the model.
    """
    options = options or InferenceOptions()
    if observation.rays.ndim != 4:
        shape = " x ".join(map(str, observation.images.shape))
        raise ValueError(f"images are {shape}; expected those of one sample, without batch dimension")
    batch = observation.map(lambda tensor: tensor[None])
    prediction = _predict(model, batch, options.precision)
    return _postprocess(prediction, options, covered, as_matched(model, prediction, batch.to("cpu")))


def _predict(
    model: nn.Module | Callable[[Observation], Prediction], observation: Observation, precision: str
) -> Prediction:
    device = observation.images.device
    if isinstance(model, nn.Module):
        model.eval()
        device = next((parameter.device for parameter in model.parameters()), device)
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and computes_bf16(device.type) else "fp32"
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        prediction = model(observation.to(device))
    # outside inference mode: plain tensors
    return prediction.map(lambda tensor: (tensor.float() if tensor.is_floating_point() else tensor).cpu().clone())


def _postprocess(
    prediction: Prediction,
    options: InferenceOptions,
    covered: Bool[Tensor, "v h w"] | None,
    placed: Prediction | None = None,
) -> Inference:
    """The result of a prediction; ``placed`` is the same with its points elsewhere."""
    placed = prediction if placed is None else placed
    single = placed.map(lambda tensor: tensor[0])
    pose = pose_from_quat_trans(single.pose_quat, single.pose_trans)
    view0_from_frame = invert(pose[:1])
    pose = view0_from_frame @ pose
    pose[0] = torch.eye(4)
    points = transform_points(pose, single.points_view.flatten(1, 2)).view_as(single.points_view)

    non_ambiguous = single.mask_logits > 0  # sigmoid above one half
    shown = non_ambiguous if covered is None else non_ambiguous & covered.cpu()
    mask = confident(single.confidence, shown, options.confidence_percentile)
    if options.edges:
        limits = options.edge_depth_ratio, options.edge_normal_deg
        mask = mask & ~flying_pixels(single.rays, single.depth, mask, options.camera_model, *limits)
    rays, usable = single.rays.numpy(), _enough(non_ambiguous).numpy()
    return Inference(
        prediction=prediction,
        rays=single.rays,
        depth=single.depth,
        pose=pose,
        points_world=points,
        confidence=single.confidence,
        mask=mask,
        non_ambiguous=non_ambiguous,
        camera=_fit_camera(options.camera_model, rays, usable),
        rays_from="prediction" if placed is prediction else "calibration",
    )


def _fit_camera(
    kind: str, rays: Float[np.ndarray, "v h w 3"], usable: Bool[np.ndarray, "v h w"]
) -> PinholeCalibration | PanoramaCalibration | None:
    if kind == "mosaic":
        return None
    return fit_panorama(rays, usable) if kind == "cyl" else fit_pinhole(rays, usable)


def _enough(mask: Bool[Tensor, "v h w"]) -> Bool[Tensor, "v h w"]:
    """The mask, or all pixels of a view in which the mask leaves too few to fit a camera."""
    return mask | (mask.float().mean(dim=(1, 2)) < ENOUGH_SHARE)[:, None, None]
