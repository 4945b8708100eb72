"""Injection of the cameras' calibrated poses into the tokens of the panorama, in addition to the fused images.

Each camera's pose becomes a token; the tokens become one feature per agent, which is added to all of its patch tokens.
The feature is zero-initialized.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from coopmap.config.fusion import FusionConfig
from coopmap.models.fusion.cameras import NUM_CAMERAS
from coopmap.models.layers import LayerNorm
from coopmap.models.priors import POSE_NUMBERS, GlobalEncoder, encode_poses
from coopmap.types import Observation

HIDDEN_DIMS = (128, 128)
"""Hidden widths of the pose encoder."""


def build_injection(cfg: FusionConfig, dim: int) -> PoseInjection | None:
    """The configured injection; ``None`` where poses are not injected.

    Args:
        cfg: kind of fusion and of injection, and their options.
        dim: width of the encoder.
    """
    match cfg.injection:
        case "pose_token":
            return PoseTokenInjection(cfg, dim)
        case "late":
            return LateInjection(cfg, dim)
    return None


class PoseInjection(nn.Module, ABC):
    """Features of an agent's camera poses. Cameras that see nothing are excluded.

    Args:
        cfg: see :class:`~coopmap.config.fusion.FusionConfig`.
        dim: width of the patch tokens.
    """

    def __init__(self, cfg: FusionConfig, dim: int) -> None:
        super().__init__()
        self.pose_encoder = GlobalEncoder(POSE_NUMBERS, cfg.dim, HIDDEN_DIMS)
        self.slot = nn.Parameter(0.02 * torch.randn(NUM_CAMERAS, cfg.dim))
        self.output = nn.Linear(cfg.dim, dim, bias=False)
        nn.init.zeros_(self.output.weight)

    def forward(self, observation: Observation, patches: Float[Tensor, "b v n c"]) -> Float[Tensor, "b v 1 c"]:
        """What to add to the patch tokens of each agent; zero where no camera sees anything.

        Args:
            observation: of the layout ``grouped`` or ``warped``.
            patches: encoder output for the fused images.
        """
        angle, pose = observation.camera_angle, observation.camera_pose
        assert angle is not None
        assert pose is not None
        sees = angle.isfinite().flatten(3).any(dim=3).flatten(0, 1)
        pose = torch.where(sees[..., None, None], pose.flatten(0, 1), torch.eye(4, device=pose.device))
        tokens = self.pose_encoder(encode_poses(pose)) + self.slot
        summary = self.summarize(tokens, sees, patches.flatten(0, 1))
        return self.output(summary * sees.any(dim=1)[:, None])[:, None].unflatten(0, patches.shape[:2])

    @abstractmethod
    def summarize(
        self, tokens: Float[Tensor, "b k d"], sees: Bool[Tensor, "b k"], patches: Float[Tensor, "b n c"]
    ) -> Float[Tensor, "b d"]:
        """One feature per agent; for an agent whose cameras see nothing it is unused, but finite."""
        ...


class PoseTokenInjection(PoseInjection):
    """The cameras' tokens, fused in the same way as their images."""

    def __init__(self, cfg: FusionConfig, dim: int) -> None:
        super().__init__(cfg, dim)
        self.fusion: nn.Module
        match cfg.kind:
            case "concat" | "conv3d":
                self.fusion = _Concat(cfg.dim)
            case "conv_gru":
                self.fusion = _Recurrence(cfg.dim)
            case "cross_attention":
                self.fusion = _Attention(cfg.dim, cfg.num_heads)
            case _:
                self.fusion = _Mean()

    def summarize(
        self, tokens: Float[Tensor, "b k d"], sees: Bool[Tensor, "b k"], patches: Float[Tensor, "b n c"]
    ) -> Float[Tensor, "b d"]:
        """See :meth:`PoseInjection.summarize`."""
        return self.fusion(tokens, sees)


class LateInjection(PoseInjection):
    """The cameras' tokens attend to the patch tokens of their agent; the outputs are averaged."""

    def __init__(self, cfg: FusionConfig, dim: int) -> None:
        super().__init__(cfg, dim)
        self.norm = LayerNorm(dim)
        self.attention = nn.MultiheadAttention(cfg.dim, cfg.num_heads, kdim=dim, vdim=dim, batch_first=True)
        self.fusion = _Mean()

    def summarize(
        self, tokens: Float[Tensor, "b k d"], sees: Bool[Tensor, "b k"], patches: Float[Tensor, "b n c"]
    ) -> Float[Tensor, "b d"]:
        """See :meth:`PoseInjection.summarize`."""
        patches = self.norm(patches)
        answers, _ = self.attention(tokens, patches, patches, need_weights=False)
        return self.fusion(answers, sees)


class _Mean(nn.Module):
    """Average over the cameras that see anything."""

    def forward(self, tokens: Float[Tensor, "b k d"], sees: Bool[Tensor, "b k"]) -> Float[Tensor, "b d"]:
        weights = sees / sees.sum(dim=1, keepdim=True).clamp(min=1)
        return (tokens * weights[..., None]).sum(dim=1)


class _Concat(nn.Module):
    """A linear map of the tokens side by side, zero in place of cameras that see nothing."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(NUM_CAMERAS * dim, dim)

    def forward(self, tokens: Float[Tensor, "b k d"], sees: Bool[Tensor, "b k"]) -> Float[Tensor, "b d"]:
        return self.linear((tokens * sees[..., None]).flatten(1))


class _Recurrence(nn.Module):
    """Last state of a recurrent unit over the cameras in slot order that skips those that see nothing.

    On maps of one cell a convolutional GRU is a GRU.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(dim, dim)

    def forward(self, tokens: Float[Tensor, "b k d"], sees: Bool[Tensor, "b k"]) -> Float[Tensor, "b d"]:
        state = torch.zeros_like(tokens[:, 0])
        for slot in range(NUM_CAMERAS):
            state = torch.where(sees[:, slot, None], self.cell(tokens[:, slot], state), state)
        return state


class _Attention(nn.Module):
    """A learned query attends to the cameras that see anything, to all where none does."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(dim))
        self.attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)

    def forward(self, tokens: Float[Tensor, "b k d"], sees: Bool[Tensor, "b k"]) -> Float[Tensor, "b d"]:
        hidden = ~sees & sees.any(dim=1, keepdim=True)
        query = self.query.expand(len(tokens), 1, -1)
        answer, _ = self.attention(query, tokens, tokens, key_padding_mask=hidden, need_weights=False)
        return answer[:, 0]
