"""Additions to the published network, in one list. Each is off unless its key enables it.

Their effects are recorded in ``docs/panorama_awareness.md``, ``docs/inputs.md`` and ``experiments/``.
"""

from __future__ import annotations

from collections.abc import Callable

from coopmap.config.model import ModelConfig
from coopmap.models.addons.base import AddOn, Trunk
from coopmap.models.addons.ground_range import GroundRange
from coopmap.models.addons.matching import Matching
from coopmap.models.addons.plucker import PluckerEncoding
from coopmap.models.addons.pose_correction import PoseCorrection
from coopmap.models.addons.pose_update import PoseUpdate
from coopmap.models.addons.rig_constraint import RigConstraint
from coopmap.models.addons.rig_encoder import RigEncoder
from coopmap.models.addons.spherical import SphericalEncoding
from coopmap.models.addons.view_embedding import ViewEmbedding

__all__ = ["AddOn", "Trunk", "build_addons"]


def build_addons(cfg: ModelConfig) -> dict[str, AddOn]:
    """The add-ons that ``cfg`` enables, by the names under which the model holds their parameters.

    Their initial weights are drawn, and their hooks called, in this order; new ones go to the end.
    """
    dim, shared_dim, feature_dim = cfg.encoder.dim, cfg.info_sharing.dim, cfg.heads.feature_dim
    patch_size, last = cfg.encoder.patch_size, cfg.info_sharing.depth - 1
    table: list[tuple[str, bool, Callable[[], AddOn]]] = [
        ("view_embedding", cfg.view_embedding, lambda: ViewEmbedding(dim)),
        ("spherical_encoding", cfg.spherical_encoding, lambda: SphericalEncoding(dim, patch_size)),
        ("rig_encoder", cfg.inputs.rig, lambda: RigEncoder(dim)),
        ("pose_correction", cfg.pose_correction, lambda: PoseCorrection(dim)),
        ("pose_update", cfg.pose_update, lambda: PoseUpdate(shared_dim)),
        ("rig_constraint", cfg.rig_constraint, RigConstraint),
        ("plucker", cfg.plucker, lambda: PluckerEncoding(dim, patch_size)),
        (
            "matching",
            bool(cfg.matching.enabled),
            lambda: Matching(cfg.matching, dim, shared_dim, feature_dim, last, patch_size, cfg.pose_from or "head"),
        ),
        ("ground_range", cfg.ground_range, lambda: GroundRange(dim, patch_size)),
    ]
    return {name: build() for name, wanted, build in table if wanted}
