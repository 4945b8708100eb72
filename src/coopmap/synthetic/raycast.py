"""First-hit ray casting with Embree (float32 search, float64 distances)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Bool, Float, Integer


@dataclass(frozen=True, eq=False)
class Hits:
    """First hits of ``n`` rays.

    Attributes:
        distance: in lengths of the ray's direction vector; infinite for a miss.
        triangle: index of the triangle, -1 for a miss.
        barycentric: weights of the triangle's second and third corner.
    """

    distance: Float[np.ndarray, " n"]
    triangle: Integer[np.ndarray, " n"]
    barycentric: Float[np.ndarray, "n 2"]


class Caster:
    """Triangles that rays can be cast against."""

    def __init__(self, triangles: Float[np.ndarray, "f 3 3"]) -> None:
        self._empty = len(triangles) == 0
        normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        self._normal = np.ascontiguousarray(normal.T)
        self._offset = np.einsum("fi,fi->f", normal, triangles[:, 0])
        self._scene = EmbreeScene()
        if not self._empty:
            TriangleMesh(self._scene, np.ascontiguousarray(triangles, dtype=np.float32))

    def first_hits(
        self,
        origin: Float[np.ndarray, "3"],
        direction: Float[np.ndarray, "n 3"],
        nearer_than: Float[np.ndarray, " n"] | None = None,
    ) -> Hits:
        """Cast rays from one origin; with ``nearer_than``, hits beyond it count as misses.

        Embree works in float32, a millimeter off at grazing incidence; the distance is therefore computed again in
        float64 from the plane of the triangle that was hit.
        """
        count = len(direction)
        if self._empty:
            return Hits(np.full(count, np.inf), np.full(count, -1, dtype=np.int32), np.zeros((count, 2), np.float32))
        found = self._scene.run(
            np.repeat(origin.astype(np.float32)[None], count, axis=0),
            direction.astype(np.float32),
            dists=None if nearer_than is None else np.minimum(nearer_than, 1e30).astype(np.float32),
            output=1,
        )
        triangle, coarse = found["primID"], found["tfar"].astype(np.float64)
        # a miss is triangle -1: any distance will do until infinity replaces it
        with np.errstate(divide="ignore", invalid="ignore"):
            across = (self._normal.take(triangle, axis=1) * np.ascontiguousarray(direction.T)).sum(axis=0)
            exact = (self._offset - origin @ self._normal).take(triangle) / across
            distance = np.where(np.abs(exact - coarse) < 0.05 * coarse, exact, coarse)
        distance[triangle < 0] = np.inf
        return Hits(distance, triangle, np.stack([found["u"], found["v"]], axis=-1))

    def blocked(self, origins: Float[np.ndarray, "n 3"], direction: Float[np.ndarray, "3"]) -> Bool[np.ndarray, " n"]:
        """Whether anything lies along ``direction`` from each origin."""
        if self._empty:
            return np.zeros(len(origins), dtype=bool)
        directions = np.repeat(direction.astype(np.float32)[None], len(origins), axis=0)
        return self._scene.run(origins.astype(np.float32), directions, query="OCCLUDED") >= 0
