"""Appearance of surfaces, and the light that falls on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from coopmap.synthetic.surface import Surface

AMBIENT, SUN = 0.55, 0.72
"""Light of the sky and of the sun on a surface that faces it."""


@dataclass(frozen=True, eq=False)
class Skin:
    """Appearance of triangles in the form that shading reads."""

    uv: Float[np.ndarray, "f 3 2"]
    normal: Float[np.ndarray, "f 3"]
    tiles_per_m: Float[np.ndarray, " f"]
    material: Integer[np.ndarray, " f"]
    color: Float[np.ndarray, "f 3"]

    @classmethod
    def joined(cls, first: Skin, second: Skin) -> Skin:
        """Skin of two surfaces merged."""
        return cls(*(np.concatenate([getattr(first, key), getattr(second, key)]) for key in cls.__dataclass_fields__))

    @classmethod
    def of(cls, surface: Surface) -> Skin:
        """Skin of a surface."""
        edge = surface.triangles[:, 1:] - surface.triangles[:, :1]
        normal = np.cross(edge[:, 0], edge[:, 1])
        area = np.linalg.norm(normal, axis=-1)
        uv_edge = surface.uv[:, 1:] - surface.uv[:, :1]
        uv_area = np.abs(uv_edge[:, 0, 0] * uv_edge[:, 1, 1] - uv_edge[:, 0, 1] * uv_edge[:, 1, 0])
        return cls(
            np.concatenate([surface.uv[:, :1], uv_edge], axis=1).astype(np.float32),
            (normal / np.maximum(area, 1e-12)[:, None]).astype(np.float32),
            np.sqrt(uv_area / np.maximum(area, 1e-12)).astype(np.float32),
            surface.material.astype(np.int32),
            surface.color.astype(np.float32),
        )
