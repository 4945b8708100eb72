"""Time and memory of the objective, for growing numbers of views (``coopmap bench loss``)."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn.functional import normalize

from coopmap.benchmarks.floor import synchronize
from coopmap.benchmarks.options import EVERY_TERM, LossOptions
from coopmap.benchmarks.report import Report, table
from coopmap.benchmarks.upstream_loss import Criterion as UpstreamCriterion
from coopmap.benchmarks.upstream_loss import time_upstream, upstream_criterion
from coopmap.config.compose import conf_dir
from coopmap.config.loss import LossConfig, LossWeights
from coopmap.geometry import pose_from_quat_trans, transform_points
from coopmap.geometry.rig import OPV2V_LIDAR_HEIGHT_M
from coopmap.losses import Criterion
from coopmap.models.counting import WorkCounter
from coopmap.types import Prediction, Target, truth_in_view0

COLUMNS = {
    "loss": "loss",
    "views": "views",
    "forward_ms": "forward ms",
    "backward_ms": "backward ms",
    "ns_per_pixel": "ns / pixel",
    "ratio": "ratio",
    "upstream_ms": "upstream ms",
    "of_upstream": "of upstream",
    "input_mib": "input MiB",
    "kept_mib": "kept MiB",
    "peak_mib": "peak MiB",
    "peak_ratio": "peak / input",
    "operations": "operations",
    "kernels": "kernels",
    "waits": "waits",
}


def main(options: LossOptions) -> None:
    """Command line."""
    options.show(measure(options))


def measure(options: LossOptions) -> Report:
    """Time, memory and operations of each objective for each number of views."""
    options.prepare()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    shape = f"{options.batch} x views x {options.height} x {options.width}"
    report = Report({"device": name, "shape": shape, "torch": torch.__version__})
    rows = []
    scenes = {views: make_scene(options, views, device) for views in options.views}
    for loss in options.loss:
        criterion = Criterion(loss_config(loss))
        seconds = _time_side_by_side(criterion, upstream_criterion(loss), scenes, options.repeats, device)
        first = None
        for views, (prediction, target) in scenes.items():
            (forward, backward), upstream = seconds[views]
            per_pixel = (forward + backward) / target.depth.numel()
            first = first or per_pixel
            input_bytes = sum(tensor.nbytes for tensor in [*_tensors(prediction), *_tensors(target)])
            kept, peak, operations = _count(criterion, prediction, target)
            row: dict[str, Any] = {
                "loss": loss,
                "views": views,
                "forward_ms": 1e3 * forward,
                "backward_ms": 1e3 * backward,
                "ns_per_pixel": 1e9 * per_pixel,
                "ratio": per_pixel / first,
                "input_mib": input_bytes / 2**20,
                "kept_mib": kept / 2**20,
                "peak_mib": peak / 2**20,
                "peak_ratio": peak / input_bytes,
                "operations": operations,
            }
            if upstream is not None:
                row |= {"upstream_ms": 1e3 * upstream, "of_upstream": (forward + backward) / upstream}
            if device.type == "cuda":
                row["kernels"] = _count_kernels(criterion, prediction, target)
                row["waits"] = count_waits(criterion, prediction, target)
            rows.append(row)
    report.tables.append(table("Objective, forward and backward", COLUMNS, rows))
    return report


def loss_config(name: str) -> LossConfig:
    """A choice of ``conf/loss``, or every term at once."""
    if name == EVERY_TERM:
        weights = LossWeights(**{term.name: 1.0 for term in fields(LossWeights)})
        return LossConfig(weights=weights, pose_terms="both", normals="dense", mask_pos_weight="auto")
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(conf_dir()), version_base=None):
        values = compose(overrides=[f"+loss={name}"]).loss
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(LossConfig), values))
    assert isinstance(config, LossConfig)
    return config


def make_scene(options: LossOptions, views: int, device: torch.device) -> tuple[Prediction, Target]:
    """Street-like depth below the horizon, known for two thirds of the covered pixels, and a prediction a bit off."""
    generator = torch.Generator().manual_seed(0)
    pixels = (options.batch, views, options.height, options.width)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    depth = 2 + 40 * uniform(*pixels)
    rays = normalize(uniform(*pixels, 3) - 0.5, dim=-1)
    valid = uniform(*pixels) < 0.67
    quat = normalize(uniform(options.batch, views, 4) - 0.5, dim=-1)
    pose = pose_from_quat_trans(quat, 60 * uniform(options.batch, views, 3) - 30)
    samples = torch.ones(options.batch, dtype=torch.bool)
    target = Target(
        rays=rays,
        depth=depth * valid,
        valid=valid,
        non_ambiguous=torch.ones_like(valid),
        pose=pose,
        is_metric=samples,
        is_synthetic=torch.arange(options.batch) % 2 == 0,
        agent=torch.arange(views).div(2, rounding_mode="floor").expand(options.batch, views),
        rig_pose=pose,
        ground_height_m=torch.full((options.batch, views), OPV2V_LIDAR_HEIGHT_M),
    ).to(device)
    truth = truth_in_view0(target)
    guess = (depth * (0.9 + 0.2 * uniform(*pixels))).to(device)
    points = truth.rays * guess[..., None]
    prediction = Prediction(
        rays=truth.rays.clone(),
        depth=guess,
        pose_trans=truth.trans + 1.0,
        pose_quat=truth.quat.clone(),
        scale=torch.full((options.batch,), 10.0, device=device),
        confidence=(1 + uniform(*pixels)).to(device),
        mask_logits=(uniform(*pixels) - 0.5).to(device),
        points_view=points,
        points_world=transform_points(pose_from_quat_trans(truth.quat, truth.trans), points.flatten(2, 3)).view_as(
            points
        ),
    )
    return prediction, target


def _time_side_by_side(
    criterion: Criterion,
    upstream: UpstreamCriterion | None,
    scenes: dict[int, tuple[Prediction, Target]],
    repeats: int,
    device: torch.device,
) -> dict[int, tuple[tuple[float, float], float | None]]:
    """Seconds forward and backward by number of views, and upstream's for both: the fastest of several rounds through
    all of them.
    """
    ours: dict[int, list[tuple[float, float]]] = {views: [] for views in scenes}
    theirs: dict[int, list[float]] = {views: [] for views in scenes}
    for _ in range(repeats + 1):
        for views, scene in scenes.items():
            ours[views].append(_time(criterion, *scene, device))
            if upstream is not None:
                theirs[views].append(time_upstream(upstream, *scene, _clock(device), partial(synchronize, device)))
    return {views: (min(ours[views][1:], key=sum), min(theirs[views][1:], default=None)) for views in scenes}


def _clock(device: torch.device) -> Callable[[], float]:
    return time.perf_counter if device.type == "cuda" else time.process_time


def _time(criterion: Criterion, prediction: Prediction, target: Target, device: torch.device) -> tuple[float, float]:
    clock = _clock(device)
    leaves = _leaves(prediction)
    synchronize(device)
    started = clock()
    total, _ = criterion(leaves, target, teacher=prediction)
    synchronize(device)
    between = clock()
    total.backward()
    synchronize(device)
    return between - started, clock() - between


def _count(criterion: Criterion, prediction: Prediction, target: Target) -> tuple[int, int, int]:
    """Bytes kept between forward and backward pass, peak bytes, operations dispatched."""
    leaves = _leaves(prediction)
    with OperationCounter() as counter:
        total, _ = criterion(leaves, target, teacher=prediction)
        kept = counter.live_bytes
        total.backward()
    return kept, counter.peak_bytes, counter.operations


class OperationCounter(WorkCounter):
    """Tracks memory and counts operations; views of tensors do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += not func.is_view
        result = func(*args, **(kwargs or {}))
        inputs = {tensor.untyped_storage()._cdata for tensor in _tensors_of(args)}
        self.watch(*(tensor for tensor in _tensors_of(result) if tensor.untyped_storage()._cdata not in inputs))
        return result


def _count_kernels(criterion: Criterion, prediction: Prediction, target: Target) -> int:
    from torch.profiler import ProfilerActivity, profile

    leaves = _leaves(prediction)
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as recorded:
        criterion(leaves, target, teacher=prediction)[0].backward()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in recorded.events())


def count_waits(criterion: Criterion, prediction: Prediction, target: Target) -> int:
    """Number of host-device synchronizations that PyTorch reports."""
    leaves = _leaves(prediction)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            criterion(leaves, target, teacher=prediction)[0].backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def _leaves(prediction: Prediction) -> Prediction:
    return prediction.map(lambda tensor: tensor.detach().requires_grad_())


def _tensors(record: Prediction | Target) -> list[Tensor]:
    return [value for each in fields(record) if isinstance(value := getattr(record, each.name), Tensor)]


def _tensors_of(tree: Any) -> list[Tensor]:
    from torch.utils._pytree import tree_leaves

    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
