"""The four cameras of a car as images of a COLMAP model.

A panorama is no pinhole camera. What it was stitched from is four, and the rig's calibration says where they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from coopmap.formats.colmap import PosedImage
from coopmap.geometry.rig import Rig


def images_of_rig(rig: Rig, pose: Float[np.ndarray, "4 4"], names: Sequence[str]) -> list[PosedImage]:
    """Images of an agent at ``T_world_agent``; their names below the scenario's folder are in the order of slots."""
    return [
        PosedImage(name, intrinsics, rig.image_size, pose @ agent_from_camera)
        for name, intrinsics, agent_from_camera in zip(names, rig.intrinsics, rig.agent_from_camera, strict=True)
    ]
