"""The four cameras of a car as images of a COLMAP model.

A panorama is no pinhole camera. What it was stitched from is four, and the rig's calibration says where they are.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from coopmap.formats.colmap import PosedImage
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT, Rig


def images_of_rig(rig: Rig, pose: Float[np.ndarray, "4 4"], agent: str, frame: str) -> list[PosedImage]:
    """Images of an agent at ``T_world_agent``, with the names that they have below the scenario's folder."""
    return [
        PosedImage(f"{agent}/{frame}_camera{number}.png", intrinsics, rig.image_size, pose @ agent_from_camera)
        for number, intrinsics, agent_from_camera in zip(
            OPV2V_CAMERA_OF_SLOT, rig.intrinsics, rig.agent_from_camera, strict=True
        )
    ]
