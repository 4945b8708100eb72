"""Which geometric inputs the model gets besides the images (group ``task``)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from coopmap.config.checks import require

INPUTS = ("rays", "depth", "pose")


@dataclass
class TaskConfig:
    """Probabilities with which a training sample comes with geometric inputs (upstream's ``geometric_input_config``).

    An input that is not drawn has no influence on the output. Do not request what a deployed agent does not have:
    ``depth`` and ``pose`` give the model measured depth and ground-truth poses.

    Attributes:
        name: label for logs, tables and reports.
        geometric: a sample gets geometric inputs at all (upstream ``overall_prob``).
        rays: such a sample gets calibrated rays (``ray_dirs_prob``).
        depth: it gets depth (``depth_prob``).
        pose: it gets poses (``cam_prob``).
        view_dropout: a view of such a sample gets none of them (``dropout_prob``).
        sparse_depth: the depth of a sample is sparsified (``sparse_depth_prob``).
        sparse_depth_removed: share of known pixels that sparsification removes (``sparsification_removal_percent``).
        hide_depth_scale: a view's depth comes without its metric scale (``depth_scale_norm_all_prob``).
        hide_pose_scale: a view's pose comes without its metric scale (``pose_scale_norm_all_prob``).
    """

    name: str = "images_only"
    geometric: float = 0.0
    rays: float = 0.0
    depth: float = 0.0
    pose: float = 0.0
    view_dropout: float = 0.0
    sparse_depth: float = 0.0
    sparse_depth_removed: float = 0.9
    hide_depth_scale: float = 0.0
    hide_pose_scale: float = 0.0

    def __post_init__(self) -> None:
        for key in (
            "geometric",
            *INPUTS,
            "view_dropout",
            "sparse_depth",
            "sparse_depth_removed",
            "hide_depth_scale",
            "hide_pose_scale",
        ):
            value = getattr(self, key)
            require(0 <= value <= 1, f"task.{key}", value, "a probability in [0, 1]")

    def may_give(self, kind: str) -> bool:
        """Whether samples can come with ``rays``, ``depth`` or ``pose``."""
        return self.geometric * getattr(self, kind) > 0

    def always_gives(self, kind: str) -> bool:
        """Whether every view comes with it."""
        return self.geometric * getattr(self, kind) * (1 - self.view_dropout) == 1

    def for_evaluation(self) -> Self:
        """The same without randomness: inputs that every training sample has are given, all others never.

        So a model that was trained with and without geometric inputs is evaluated on images alone.
        """
        rays, depth, pose = (float(self.always_gives(kind)) for kind in INPUTS)
        return replace(
            self,
            geometric=max(rays, depth, pose),
            rays=rays,
            depth=depth,
            pose=pose,
            view_dropout=0.0,
            sparse_depth=float(self.sparse_depth == 1),
            hide_depth_scale=float(self.hide_depth_scale == 1),
            hide_pose_scale=float(self.hide_pose_scale == 1),
        )

    def describe(self) -> str:
        """The inputs in words, for logs and reports."""
        given = [name for kind, name in _WORDS.items() if self.always_gives(kind)]
        sometimes = [name for kind, name in _WORDS.items() if self.may_give(kind) and not self.always_gives(kind)]
        parts = ["images", *given, *(f"{name} (in part of the samples)" for name in sometimes)]
        return " + ".join(parts) if len(parts) > 1 else "images only"


_WORDS = {"rays": "calibrated rays", "depth": "measured depth", "pose": "poses"}
