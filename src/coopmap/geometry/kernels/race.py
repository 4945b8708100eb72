"""Which camera sees each pixel of a panorama best, and where: see :func:`coopmap.geometry.panorama.build_warp`."""

from __future__ import annotations

import math

import numpy as np

from coopmap.geometry.kernels.compiling import kernel, part

RADIUS, GROUND, WIDTH, HEIGHT, KEPT_ROWS, ZERO, ONE, UNSEEN, LEAST_SLOPE = range(9)
"""Places in the array of numbers, which has the precision that is computed in, as constants do not."""


@part
def place(rays, numbers, x, y, z):
    """Where rays meet the proxy surface."""
    for i in range(x.shape[0]):
        reach = min(numbers[GROUND] / max(rays[3 * i + 1], numbers[LEAST_SLOPE]), numbers[RADIUS])
        x[i], y[i], z[i] = rays[3 * i] * reach, rays[3 * i + 1] * reach, rays[3 * i + 2] * reach


@part
def enter(slot, intrinsics, pose, numbers, x, y, z, first, second):
    """Let a camera compete: the smallest slope against the optical axis (squared tangent) comes first."""
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    r00, r01, r02, r10, r11, r12 = pose[0, 0], pose[0, 1], pose[0, 2], pose[1, 0], pose[1, 1], pose[1, 2]
    r20, r21, r22, t0, t1, t2 = pose[2, 0], pose[2, 1], pose[2, 2], pose[0, 3], pose[1, 3], pose[2, 3]
    zero, wide, high, half, unseen = numbers[ZERO], numbers[WIDTH], numbers[HEIGHT], numbers[KEPT_ROWS], numbers[UNSEEN]
    middle = high / (numbers[ONE] + numbers[ONE])
    camera, slope, u, v = first
    camera_2, slope_2, u_2, v_2 = second
    for i in range(x.shape[0]):
        ahead = r20 * x[i] + r21 * y[i] + r22 * z[i] + t2
        right = (r00 * x[i] + r01 * y[i] + r02 * z[i] + t0) / ahead
        down = (r10 * x[i] + r11 * y[i] + r12 * z[i] + t1) / ahead
        column, row = right * fx + cx, down * fy + cy
        seen = (ahead > zero) & (column >= zero) & (column < wide) & (row >= zero) & (row < high)
        seen &= abs(row - middle) <= half
        steep = right * right + down * down if seen else unseen
        wins, follows = steep < slope[i], steep < slope_2[i]
        camera_2[i] = camera[i] if wins else (slot if follows else camera_2[i])
        slope_2[i] = slope[i] if wins else (steep if follows else slope_2[i])
        u_2[i] = u[i] if wins else (column if follows else u_2[i])
        v_2[i] = v[i] if wins else (row if follows else v_2[i])
        camera[i] = slot if wins else camera[i]
        slope[i] = steep if wins else slope[i]
        u[i] = column if wins else u[i]
        v[i] = row if wins else v[i]


@part
def write_down(camera, u, v, image_width, winner, source, pixel):
    """The winners of a row."""
    for i in range(winner.shape[0]):
        winner[i] = camera[i]
        source[i] = np.int32(v[i]) * image_width + np.int32(u[i]) if camera[i] >= 0 else np.int32(-1)
        pixel[2 * i], pixel[2 * i + 1] = u[i], v[i]


@part
def blend(start, feather, nearly, one, slope, second, count, blend_at, blend_camera, blend_pixel, blend_weight):
    """Pixels at which the second camera is nearly as close to its axis as the winner; how many there are so far."""
    camera, slope_2, u, v = second
    for i in range(camera.shape[0]):
        if camera[i] >= 0:
            behind, ahead = math.sqrt(slope_2[i]), math.sqrt(slope[i])
            if behind - ahead < nearly * (one + behind * ahead):  # tangents of few: arctan is slow
                lead = math.atan(behind) - math.atan(ahead)
                if lead < feather:
                    blend_at[count], blend_camera[count] = start + i, camera[i]
                    blend_pixel[count, 0], blend_pixel[count, 1] = u[i], v[i]
                    blend_weight[count] = 0.5 * (1 - lead / feather)
                    count += 1
    return count


@kernel
def find_winners(
    rays, numbers, feather, intrinsics, poses, winner, source, pixel, blend_at, blend_camera, blend_pixel, blend_weight
):
    """Fill the fields of a warp.

    Args:
        rays: ``(h, 3 w)``, unit directions of a panorama's pixels, agent frame.
        numbers: radius of the proxy surface, height of the agent above its ground, width and height of images, half
            the rows that count, 0, 1, infinity, and the smallest downward slope.
        feather: width of the blend, radians.
        intrinsics: ``(k, 4)``, focal lengths and principal point in pixels.
        poses: ``(k, 3, 4)``, from the agent's frame into the cameras'.
        winner: ``(h, w)``, see :class:`~coopmap.geometry.panorama.PanoramaWarp`.
        source: ``(h, w)``, likewise.
        pixel: ``(h, 2 w)``, likewise.
        blend_at: likewise, with room for all pixels.
        blend_camera: likewise.
        blend_pixel: likewise.
        blend_weight: likewise.

    Returns:
        How many pixels are blended.
    """
    height, width = winner.shape
    fields, cameras = np.empty((9, width), rays.dtype), np.empty((2, width), np.int32)
    x, y, z = fields[0], fields[1], fields[2]
    first = (cameras[0], fields[3], fields[4], fields[5])
    second = (cameras[1], fields[6], fields[7], fields[8])
    nearly, count = numbers[ONE] * math.tan(min(1.01 * feather, math.pi / 2)), 0
    for row in range(height):
        place(rays[row], numbers, x, y, z)
        cameras[:], fields[3:] = -1, -1
        first[1][:], second[1][:] = numbers[UNSEEN], numbers[UNSEEN]
        for slot in range(poses.shape[0]):
            enter(np.int32(slot), intrinsics[slot], poses[slot], numbers, x, y, z, first, second)
        image_width = np.int32(numbers[WIDTH])
        write_down(first[0], first[2], first[3], image_width, winner[row], source[row], pixel[row])
        count = blend(
            row * width, feather, nearly, numbers[ONE], first[1], second,
            count, blend_at, blend_camera, blend_pixel, blend_weight,
        )  # fmt: skip
    return count
