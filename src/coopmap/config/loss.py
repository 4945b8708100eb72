"""Settings of the objective (:mod:`coopmap.losses`)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from coopmap.config.checks import require, require_choice

POSE_TERMS = ("absolute", "pairwise", "both")
PAIRS = ("all", "between_agents")
DEPTH_KINDS = ("ray", "z")
NORMAL_GATES = ("synthetic", "dense")
MASK_POS_WEIGHTS = ("none", "auto")
PUBLISHED_ROBUST_ALPHA, PUBLISHED_ROBUST_C = 0.5, 0.05


@dataclass
class LossWeights:
    """Weight of each term, by the name under which it is logged; 0 leaves a term out.

    Attributes:
        pts3d: points in view 0's frame.
        cam_pts3d: points in their own view's frame.
        depth: range along the ray or z, logged as ``depth_along_ray`` or ``depth_z``.
        ray_directions: unit rays, all pixels.
        pose_quats: rotations.
        pose_trans: translations divided by the mean point distance.
        scale: mean point distance in meters, on metric samples.
        normal: angle between surface normals, where depth is dense.
        gradient_matching: multi-scale gradients of log z, where depth is dense.
        mask: cross entropy of the coverage mask. The only term that is logged without its weight.
        scale_distillation: metric scale of a frozen copy of the initial weights (``model.weights``), on all samples;
            training only.
        rig: relative poses of the cameras of one agent, meters and radians; needs cameras as views.
        height: points without known depth below the road or above the ceiling, in meters.
        range: error of the logarithm of the range in meters.
        matching: matches between the patches of agents (``model.matching``), as the following three.
        alignment: errors of the poses that follow from matches and the model's own points.
        covisibility: how much agents are said to see in common.
        confidence: whether the aligned poses and the ranges are as good as they are said to be.
    """

    pts3d: float = 1.0
    cam_pts3d: float = 1.0
    depth: float = 1.0
    ray_directions: float = 1.0
    pose_quats: float = 1.0
    pose_trans: float = 1.0
    scale: float = 1.0
    normal: float = 3.0
    gradient_matching: float = 3.0
    mask: float = 0.3
    scale_distillation: float = 0.0
    rig: float = 0.0
    height: float = 0.0
    range: float = 0.0
    matching: float = 0.0
    alignment: float = 0.0
    covisibility: float = 0.0
    confidence: float = 0.0

    def __post_init__(self) -> None:
        for term in fields(self):
            weight = getattr(self, term.name)
            require(weight >= 0, f"loss.weights.{term.name}", weight, "at least 0")


@dataclass
class PixelFactors:
    """Weight of pixels in the regression terms (points, depth, rays, mean distance) in training: 0 to 1.

    0 excludes them from everything, including normals, gradients and the mean point distance. Evaluation always uses 1.

    Attributes:
        moving_vehicles: pixels that show a moving vehicle.
        own_body: pixels that show the ego vehicle's body.
    """

    moving_vehicles: float = 1.0
    own_body: float = 1.0

    def __post_init__(self) -> None:
        for factor in fields(self):
            value = getattr(self, factor.name)
            require(0 <= value <= 1, f"loss.weights_on.{factor.name}", value, "a factor in [0, 1]")


@dataclass
class HeightPrior:
    """Bounds of plausible heights, for the term ``height``.

    Attributes:
        slope: the road may descend by this many meters per meter of horizontal distance.
        ceiling_m: nothing is higher than this above the agent's origin; null = no ceiling. The sky has no depth, and
            a ceiling would teach it one.
    """

    slope: float = 0.15
    ceiling_m: float | None = None

    def __post_init__(self) -> None:
        require(self.slope >= 0, "loss.height.slope", self.slope, "at least 0")
        ceiling = self.ceiling_m
        require(ceiling is None or ceiling > 0, "loss.height.ceiling_m", ceiling, "a positive height, or null")


@dataclass
class LossConfig:
    """Factored objective of MapAnything; the defaults are its published ones.

    Attributes:
        weights: weight of each term.
        weights_on: weight of pixels in the regression terms, by what they show.
        height: bounds of the term ``height``.
        pose_terms: ``absolute`` (poses in view 0's frame), ``pairwise`` (relative poses of ordered pairs of views) or
            ``both``, averaged together.
        pairs: pairs of views that count in ``pairwise`` and ``both``: ``all``, or ``between_agents``, without those of
            one agent's cameras, whose relative poses are constants of the rig and teach nothing about where cars are.
            Where views are agents there is no difference.
        convert_to_view0: first move predictions rigidly so that their own view 0 becomes the reference; otherwise they
            are taken to be in view 0's frame already. The objective then does not depend on the frame in which the
            model predicts.
        depth: ``ray`` (range along the ray) or ``z``.
        normals: where the normal and gradient terms apply: ``synthetic`` (samples flagged so) or ``dense`` (views whose
            share of covered pixels with known depth is at least ``dense_share``). LiDAR sweeps are never flagged.
        dense_share: in (0, 1]; the sky has no depth, so even a rendered depth map stays well below 1. Smallest to
            largest share of 48 views of the synthetic town at 252 x 1008: rendered depth 0.63 to 0.71, the agent's own
            LiDAR 0.12 to 0.14, the LiDAR sweeps of all agents 0.16 to 0.25; so 0.4 lies in the middle. With
            ``data.panorama.geometry=central``, where pixels without a splatted point stay empty, rendered depth gives
            0.29 to 0.35 and LiDAR at most 0.13: use 0.2 there. The town's images are a quarter of OPV2V's in width;
            at full size LiDAR covers a smaller share still.
        robust_alpha: shape of the robust regression loss in training, in (0, 2); below 1 it is not convex and has
            little gradient at large errors, which suits finetuning. Evaluation always uses the published 0.5.
        robust_c: error at which the robust loss stops being quadratic in training, in the unit of the compared
            quantity. Evaluation always uses the published 0.05.
        confidence_alpha: weight of the log confidence, training only; null = world points are not weighted by the
            confidence, which then learns nothing, but lose their largest errors, as in evaluation.
        exclude_top_percent: share of the largest pixel errors of each view left out on measured (not synthetic)
            samples, 0 to 100 (exclusive).
        mask_pos_weight: weight of covered pixels in the mask term: ``none`` (1) or ``auto`` (ratio of uncovered to
            covered pixels in the batch, within 0.1 to 10).
        view_scaling: multiply the training total by 2 / views when there are more than two views, its terms of pairs of
            agents by 2 / agents; what is logged of terms and evaluation totals are not affected.
    """

    weights: LossWeights = field(default_factory=LossWeights)
    weights_on: PixelFactors = field(default_factory=PixelFactors)
    height: HeightPrior = field(default_factory=HeightPrior)
    pose_terms: str = "absolute"
    pairs: str = "all"
    convert_to_view0: bool = False
    depth: str = "ray"
    normals: str = "synthetic"
    dense_share: float = 0.4
    robust_alpha: float = PUBLISHED_ROBUST_ALPHA
    robust_c: float = PUBLISHED_ROBUST_C
    confidence_alpha: float | None = 0.2
    exclude_top_percent: float = 5.0
    mask_pos_weight: str = "none"
    view_scaling: bool = True

    def __post_init__(self) -> None:
        require_choice("loss.pose_terms", self.pose_terms, POSE_TERMS)
        require_choice("loss.pairs", self.pairs, PAIRS)
        require(
            self.pairs == "all" or self.pose_terms != "absolute",
            "loss.pairs",
            self.pairs,
            "all with loss.pose_terms=absolute, which compares no pairs",
        )
        require_choice("loss.depth", self.depth, DEPTH_KINDS)
        require_choice("loss.normals", self.normals, NORMAL_GATES)
        require_choice("loss.mask_pos_weight", self.mask_pos_weight, MASK_POS_WEIGHTS)
        require(0 < self.dense_share <= 1, "loss.dense_share", self.dense_share, "a share in (0, 1]")
        require(0 < self.robust_alpha < 2, "loss.robust_alpha", self.robust_alpha, "a shape in (0, 2)")
        require(self.robust_c > 0, "loss.robust_c", self.robust_c, "a positive number")
        alpha = self.confidence_alpha
        require(alpha is None or alpha > 0, "loss.confidence_alpha", alpha, "a positive number, or null")
        excluded = self.exclude_top_percent
        require(0 <= excluded < 100, "loss.exclude_top_percent", excluded, "a percentage, at least 0 and under 100")
