"""Fusion of an agent's cameras into the tokens of one panorama."""

from __future__ import annotations

from coopmap.config.fusion import FusionConfig
from coopmap.models.fusion.base import Fusion
from coopmap.models.fusion.cameras import Cameras, group_cameras
from coopmap.models.fusion.concat import ConcatFusion
from coopmap.models.fusion.conv3d import Conv3dFusion
from coopmap.models.fusion.conv_gru import ConvGRUFusion
from coopmap.models.fusion.cross_attention import CrossAttentionFusion
from coopmap.models.fusion.injection import build_injection
from coopmap.models.fusion.mean import MeanFusion

__all__ = ["Cameras", "Fusion", "build_fusion", "build_injection", "group_cameras"]


def build_fusion(cfg: FusionConfig, dim: int, patch_size: int) -> Fusion | None:
    """The configured block; ``None`` where views need no fusion.

    Args:
        cfg: kind and options.
        dim: width of the encoder.
        patch_size: pixels per side of a patch.
    """
    match cfg.kind:
        case "mean":
            return MeanFusion(cfg, dim)
        case "concat":
            return ConcatFusion(cfg, dim, patch_size)
        case "conv3d":
            return Conv3dFusion(cfg)
        case "conv_gru":
            return ConvGRUFusion(cfg, dim)
        case "cross_attention":
            return CrossAttentionFusion(cfg, dim)
    return None
