"""Configuration of the fusion of an agent's cameras inside the model (group ``model/fusion``)."""

from __future__ import annotations

from dataclasses import dataclass

from coopmap.config.checks import require, require_choice

FUSION_LAYOUTS = {
    "none": ("panorama", "cameras", "mosaic"),
    "mean": ("grouped",),
    "concat": ("warped",),
    "conv3d": ("warped",),
    "conv_gru": ("grouped",),
    "cross_attention": ("grouped",),
}
"""Kinds of fusion, and the data layouts (``data.layout``) that each works on."""
INJECTIONS = ("none", "pose_token", "late")


@dataclass
class FusionConfig:
    """How the images of an agent's cameras become the tokens of one panorama; see ``docs/fusion.md``.

    Attributes:
        kind: ``none`` (views are panoramas, mosaics or single cameras already), ``mean``, ``concat``, ``conv3d``,
            ``conv_gru`` or ``cross_attention``.
        injection: tell the multi-view transformer the cameras' poses: ``none``, ``pose_token`` (poses fused into one
            token per car) or ``late`` (poses ask the car's patch tokens).
        directions: tell the block where each cell of the panorama and each camera look, and which slot a camera is.
        shared_blocks: encoder blocks that run on each camera before its features are fused (``mean``, ``conv_gru``,
            ``cross_attention``).
        dim: width inside the block (``conv3d``, ``conv_gru``, ``cross_attention``) and of the tokens of injected poses.
        num_heads: attention heads (``cross_attention``, ``injection=late``).
        radius: attend to the (2 radius + 1)^2 patches around what a cell shows in a camera (``cross_attention``).
    """

    kind: str = "none"
    injection: str = "none"
    directions: bool = True
    shared_blocks: int = 0
    dim: int = 128
    num_heads: int = 4
    radius: int = 0

    def __post_init__(self) -> None:
        require_choice("model.fusion.kind", self.kind, tuple(FUSION_LAYOUTS))
        require_choice("model.fusion.injection", self.injection, INJECTIONS)
        require(
            self.injection == "none" or self.kind != "none",
            "model.fusion.injection",
            self.injection,
            "none with model.fusion.kind=none, which has no camera poses",
        )
        require(self.shared_blocks >= 0, "model.fusion.shared_blocks", self.shared_blocks, "a number of blocks")
        require(
            self.shared_blocks == 0 or self.kind in ("mean", "conv_gru", "cross_attention"),
            "model.fusion.shared_blocks",
            self.shared_blocks,
            f"0 with model.fusion.kind={self.kind}, which fuses before the first block",
        )
        require(self.dim > 0, "model.fusion.dim", self.dim, "a positive width")
        require(
            self.num_heads > 0 and self.dim % self.num_heads == 0,
            "model.fusion.num_heads",
            self.num_heads,
            f"a divisor of model.fusion.dim={self.dim}",
        )
        require(self.radius >= 0, "model.fusion.radius", self.radius, "a number of patches")
        require(
            self.radius == 0 or self.kind == "cross_attention",
            "model.fusion.radius",
            self.radius,
            f"0 with model.fusion.kind={self.kind}, which looks at one place per camera",
        )

    @property
    def layouts(self) -> tuple[str, ...]:
        """Data layouts (``data.layout``) that this fusion works on."""
        return FUSION_LAYOUTS[self.kind]
