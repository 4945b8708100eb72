"""Which points lie in a box: see :func:`coopmap.geometry.boxes.points_in_boxes`."""

from __future__ import annotations

import numpy as np

from coopmap.geometry.kernels.compiling import kernel, part

AT_ONCE = 256
"""Points that are looked at one by one only if some of them are near the box."""


@part
def any_near(values, center, radius):
    """Whether some values are within a distance."""
    number = np.int32(0)
    for i in range(values.shape[0]):
        number += np.int32(abs(values[i] - center) < radius)
    return number > 0


@kernel
def points_in_box(planes, pose, lower, upper, center, radius, found):
    """Find the points in a box.

    Args:
        planes: ``(3, n)``, coordinates of the points.
        pose: ``(3, 4)``, from the box into the points' frame, double precision.
        lower: ``(3,)``, limits along the box's axes.
        upper: likewise.
        center: ``(3,)``, of the box, in the points' precision.
        radius: of a sphere around it that holds the box, in the points' precision.
        found: ``(n,)``, the numbers of the points in the box.

    Returns:
        How many there are.
    """
    count, x, y, z = 0, planes[0], planes[1], planes[2]
    for first in range(0, x.shape[0], AT_ONCE):
        some = slice(first, min(first + AT_ONCE, x.shape[0]))
        if not (
            any_near(x[some], center[0], radius)
            and any_near(z[some], center[2], radius)
            and any_near(y[some], center[1], radius)
        ):
            continue
        for i in range(some.start, some.stop):
            dx, dy, dz = x[i] - pose[0, 3], y[i] - pose[1, 3], z[i] - pose[2, 3]
            inside = True
            for axis in range(3):
                place = pose[0, axis] * dx + pose[1, axis] * dy + pose[2, axis] * dz
                inside &= (place >= lower[axis]) & (place <= upper[axis])
            if inside:
                found[count] = i
                count += 1
    return count
