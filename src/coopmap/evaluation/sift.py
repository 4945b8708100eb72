"""SIFT from OpenCV: RootSIFT, mutual nearest neighbors that pass the ratio test."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from coopmap.evaluation.keypoints import Keypoints, Size

MAX_KEYPOINTS = 2000
"""Per image, the strongest."""
MAX_RATIO = 0.8
"""Of the distances to the nearest and the second nearest descriptor (Lowe, 2004)."""


class Sift:
    """See :class:`~coopmap.evaluation.keypoints.Features`."""

    def find(self, image: UInt8[np.ndarray, "h w 3"]) -> tuple[Float[np.ndarray, "n 2"], Float32[np.ndarray, "n 128"]]:
        """Pixels and descriptors in an RGB image."""
        sift = cv2.SIFT.create(MAX_KEYPOINTS)
        found, described = sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
        if described is None:
            return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
        return np.array([keypoint.pt for keypoint in found]) + 0.5, _root(described)

    def match(self, a: Keypoints, b: Keypoints, sizes: tuple[Size, Size]) -> Int[np.ndarray, "m 2"]:
        """Mutual nearest neighbors that pass the ratio test."""
        if len(a.pixels) < 2 or len(b.pixels) < 2:
            return np.zeros((0, 2), int)
        similarity = a.descriptors @ b.descriptors.T
        best, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
        first, second = -np.partition(-similarity, 1, axis=1)[:, :2].T
        distinct = 1 - first < MAX_RATIO**2 * (1 - second)  # squared distance is 2 - 2 cosine
        kept = np.flatnonzero(distinct & (back[best] == np.arange(len(best))))
        return np.stack([kept, best[kept]], axis=1)


def _root(descriptors: Float32[np.ndarray, "n 128"]) -> Float32[np.ndarray, "n 128"]:
    """RootSIFT (Arandjelovic and Zisserman, 2012): Euclidean distances become Hellinger's."""
    total = np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)
    return np.sqrt(descriptors / total)
