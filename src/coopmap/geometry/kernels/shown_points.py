"""What the pixels of a view show, as direction and range: see :func:`coopmap.geometry.targets.content_geometry`."""

from __future__ import annotations

import math

import numpy as np

from coopmap.geometry.kernels.compiling import kernel, part

f4 = np.float32


@part
def look_up(source, depth, ranges):
    """Depth of camera pixels; not together with what is computed from it, which is done many pixels at a time."""
    for i in range(source.shape[0]):
        ranges[i] = depth[np.uint32(source[i])]


@part
def seen_from_center(source, depth, width, intrinsics, pose, x, y, z, distance):
    """Unit rays and distances, 0 = unknown, from the center of the frame that ``pose`` leads into."""
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    r00, r01, r02, r10, r11, r12 = pose[0, 0], pose[0, 1], pose[0, 2], pose[1, 0], pose[1, 1], pose[1, 2]
    r20, r21, r22, t0, t1, t2 = pose[2, 0], pose[2, 1], pose[2, 2], pose[0, 3], pose[1, 3], pose[2, 3]
    per_width = 1 / float(width)
    for i in range(source.shape[0]):
        row = np.int32((source[i] + 0.5) * per_width)  # the quotient of whole numbers takes several times as long
        column = source[i] - row * np.int32(width)
        a, b = (f4(column) + f4(0.5) - cx) / fx, (f4(row) + f4(0.5) - cy) / fy
        ahead = depth[i] / math.sqrt(a * a + b * b + f4(1))
        a *= ahead
        b *= ahead
        right, down, forward = (
            r00 * a + r01 * b + r02 * ahead + t0,
            r10 * a + r11 * b + r12 * ahead + t1,
            r20 * a + r21 * b + r22 * ahead + t2,
        )
        length = math.sqrt(right * right + down * down + forward * forward)
        scale = f4(1) / (length if length > f4(1e-12) else f4(1e-12))
        x[i], y[i], z[i] = right * scale, down * scale, forward * scale
        distance[i] = length if depth[i] > 0 else f4(0)


@part
def lay_out(x, y, z, distance, nominal, rays, ranges):
    """Coordinates side by side; nominal rays where nothing is known."""
    for i in range(ranges.shape[0]):
        known = distance[i] > 0
        ranges[i] = distance[i]
        rays[3 * i] = x[i] if known else nominal[3 * i]
        rays[3 * i + 1] = y[i] if known else nominal[3 * i + 1]
        rays[3 * i + 2] = z[i] if known else nominal[3 * i + 2]


@kernel
def shown_points(winner, source, depths, intrinsics, poses, nominal, shift, rays, ranges):
    """Direction and range of what each pixel shows.

    Args:
        winner: ``(hp, wp)``, the camera that a pixel shows; -1 = none.
        source: ``(hp, wp)``, int32, its pixel, flat.
        depths: ``(k, h, w)``, range along the unit ray of each camera pixel, 0 = unknown.
        intrinsics: ``(k, 4)``, focal lengths and principal point in pixels.
        poses: ``(k, 3, 4)``, from the cameras into the frame of the answer.
        nominal: ``(hp, 3 wp)``, directions for pixels without depth.
        shift: column ``shift`` becomes column 0.
        rays: ``(hp, 3 wp)``, the answer.
        ranges: ``(hp, wp)``, the answer, 0 = unknown.
    """
    (height, width), image_width = winner.shape, depths.shape[2]
    flat = depths.reshape(depths.shape[0], -1)
    rows = np.zeros((5, width), np.float32)
    depth, x, y, z, distance = rows[0], rows[1], rows[2], rows[3], rows[4]
    parts = ((0, shift, width), (width - shift, 0, shift))
    for row in range(height):
        first, cameras, pixels = 0, winner[row], source[row]
        while first < width:
            camera, last = cameras[first], first + 1
            while last < width and cameras[last] == camera:
                last += 1
            run = slice(first, last)
            if camera < 0:
                distance[run] = 0
            else:
                look_up(pixels[run], flat[camera], depth[run])
                seen_from_center(
                    pixels[run], depth[run], image_width, intrinsics[camera], poses[camera],
                    x[run], y[run], z[run], distance[run],
                )  # fmt: skip
            first = last
        for to, begin, end in parts:
            here, three = slice(to, to + end - begin), slice(3 * to, 3 * (to + end - begin))
            some = slice(begin, end)
            lay_out(x[some], y[some], z[some], distance[some], nominal[row][three], rays[row][three], ranges[row][here])
