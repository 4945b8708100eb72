"""Depth images splatted into a panorama at the agent's center: see :mod:`coopmap.geometry.central`."""

from __future__ import annotations

import math

import numpy as np

from coopmap.geometry.kernels.compiling import kernel, part

f4 = np.float32
PI, HALF_PI = f4(np.pi), f4(np.pi / 2)
EMPTY = np.iinfo(np.int64).max
"""Of a pixel that no point has hit."""

SLOT_BITS, ROW_BITS = 28, 14
"""A camera pixel as one number: slot, row and column from these bits on. Rows and columns are below 16,384."""
LARGEST_SIDE = 1 << ROW_BITS


@part
def atan_of_unit(q):
    """Arctangent of ``q`` in [-1, 1], off by at most 2.5e-7 (a minimax polynomial)."""
    s = q * q
    high = f4(-0.1323334134) + s * (f4(0.07962365914) + s * (f4(-0.03360420943) + s * f4(0.006811789704)))
    return q * (f4(0.9999961115) + s * (f4(-0.3331736803) + s * (f4(0.1980781536) + s * high)))


@part
def invert_row(depth, x_axis, y, inverse):
    """Inverse depth along the optical axis, infinite where unknown."""
    for x in range(depth.shape[0]):
        inverse[x] = math.sqrt(x_axis[x] * x_axis[x] + (y * y + f4(1))) / depth[x]


@part
def find_planes(inner, ahead, behind, above, below, planarity, planar):
    """Pixels around which inverse depth is linear in the image; no comparison with what is unknown is true."""
    for x in range(planar.shape[0]):
        limit, twice = planarity * inner[x], f4(2) * inner[x]
        planar[x] = (abs(ahead[x] + behind[x] - twice) < limit) & (abs(below[x] + above[x] - twice) < limit)


@part
def project_row(inverse, planar, x_axis, y, pose, panorama, pixel, squared_range):
    """Panorama pixel (-1 = none) and squared range of the points of a row.

    Directions are those of points times inverse depth, which need no division. The quotients of both angles share one.
    """
    height, width, columns_per_radian, rows_per_unit, top_row, is_cylinder = panorama
    x0, x1, x2 = pose[0, 0], pose[1, 0], pose[2, 0]
    y0, y1, y2 = pose[0, 1] * y + pose[0, 2], pose[1, 1] * y + pose[1, 2], pose[2, 1] * y + pose[2, 2]
    t0, t1, t2 = pose[0, 3], pose[1, 3], pose[2, 3]
    wide, high, half = f4(width), f4(height), f4(0.5) * f4(width)
    for i in range(pixel.shape[0]):
        right = x0 * x_axis[i] + y0 + t0 * inverse[i]
        down = x1 * x_axis[i] + y1 + t1 * inverse[i]
        ahead = x2 * x_axis[i] + y2 + t2 * inverse[i]
        level = right * right + ahead * ahead
        squared_range[i] = (level + down * down) / (inverse[i] * inverse[i])
        level = math.sqrt(level)
        near, far = min(abs(right), abs(ahead)), max(abs(right), abs(ahead))
        low, steep = min(abs(down), level), max(abs(down), level)
        shared = f4(1) / (far * steep)
        azimuth, fall = atan_of_unit(near * (steep * shared)), atan_of_unit(low * (far * shared))
        azimuth = HALF_PI - azimuth if abs(right) > abs(ahead) else azimuth
        azimuth = PI - azimuth if ahead < f4(0) else azimuth
        azimuth = -azimuth if right < f4(0) else azimuth
        fall = HALF_PI - fall if abs(down) > level else fall
        fall = -fall if down < f4(0) else fall
        fall = down / level if is_cylinder else fall
        u = azimuth * columns_per_radian + half
        u = u if u < wide else f4(0)  # the right edge is the left one
        v = fall * rows_per_unit + top_row
        inside = planar[i] & (v >= f4(0)) & (v < high)
        pixel[i] = np.int32(v) * np.int32(width) + np.int32(u) if inside else np.int32(-1)


@part
def keep_nearest(pixel, range_bits, number, nearest):
    """Range and source in one number, ordered as ranges are: bits of positive floats are ordered as the floats."""
    for i in range(pixel.shape[0]):
        at = pixel[i]
        if at >= 0:
            key = (np.int64(range_bits[i]) << np.int64(32)) | np.int64(number + i)
            nearest[np.uint32(at)] = min(nearest[np.uint32(at)], key)


@kernel
def splat_planes(depths, intrinsics, poses, planarity, panorama, nearest):
    """Splat the points of pixels whose neighborhood is one plane.

    Args:
        depths: ``(k, h, w)``, range along the unit ray of each camera pixel, 0 = unknown.
        intrinsics: ``(k, 4)``, focal lengths and principal point in pixels.
        poses: ``(k, 3, 4)``, from the cameras into the agent's frame.
        planarity: largest second difference of inverse depth, relative to it.
        panorama: height, width, columns per radian, rows per radian (of a cylinder: per unit of the tangent), row of
            the horizon, and whether it is a cylinder.
        nearest: ``(hp, wp)``, squared range and source of the nearest point of each pixel, :data:`EMPTY` = none.
    """
    num_cameras, height, width = depths.shape
    inverse, x_axis = np.empty((3, width), np.float32), np.empty(width, np.float32)
    planar, pixel = np.empty(width, np.bool_), np.empty(width, np.int32)
    squared_range = np.empty(width, np.float32)
    range_bits = squared_range.view(np.int32)
    for slot in range(num_cameras):
        depth = depths[slot]
        fx, fy, cx, cy = intrinsics[slot, 0], intrinsics[slot, 1], intrinsics[slot, 2], intrinsics[slot, 3]
        for x in range(width):
            x_axis[x] = (f4(x) + f4(0.5) - cx) / fx
        for y in range(height):
            invert_row(depth[y], x_axis, (f4(y) + f4(0.5) - cy) / fy, inverse[y % 3])
            if y < 2:
                continue
            above, inner, below = inverse[(y - 2) % 3], inverse[(y - 1) % 3], inverse[y % 3]
            find_planes(inner[1:-1], inner[2:], inner[:-2], above[1:-1], below[1:-1], planarity, planar[1:-1])
            first, last = 1, width - 1
            while first < last and not planar[first]:
                first += 1
            while first < last and not planar[last - 1]:
                last -= 1
            some = slice(first, last)
            project_row(
                inner[some], planar[some], x_axis[some], (f4(y) - f4(0.5) - cy) / fy, poses[slot], panorama,
                pixel[some], squared_range[some],
            )  # fmt: skip
            number = (slot << SLOT_BITS) + ((y - 1) << ROW_BITS) + first
            keep_nearest(pixel[some], range_bits[some], number, nearest.reshape(-1))


@part
def gather(keys, depth, height, width, columns, found, count):
    """What carrying the points of a panorama row takes, sorted by camera.

    Rows of ``found[slot]``: depth of the pixel and its neighbors ahead, behind, below and above; sine and cosine of the
    column's azimuth; as bits, squared range, source and the column.
    """
    count[:] = 0
    bits, down, one = found.view(np.int32), np.uint32(width), np.uint32(1)
    for column in range(keys.shape[0]):
        key = keys[column]
        if key != EMPTY:
            source = np.uint32(key & 0xFFFFFFFF)
            slot = source >> np.uint32(SLOT_BITS)
            y, x = (source >> np.uint32(ROW_BITS)) & np.uint32(LARGEST_SIDE - 1), source & np.uint32(LARGEST_SIDE - 1)
            pixel, at = np.uint32((slot * np.uint32(height) + y) * down + x), np.uint32(count[slot])
            count[slot] += 1
            found[slot, 0, at] = depth[pixel]
            found[slot, 1, at] = depth[np.uint32(pixel + one)]
            found[slot, 2, at] = depth[np.uint32(pixel - one)]
            found[slot, 3, at] = depth[np.uint32(pixel + down)]
            found[slot, 4, at] = depth[np.uint32(pixel - down)]
            found[slot, 5, at] = columns[0, column]
            found[slot, 6, at] = columns[1, column]
            bits[slot, 7, at] = np.int32(key >> 32)
            bits[slot, 8, at] = np.int32(source)
            bits[slot, 9, at] = column


@part
def carry(inner, ahead, behind, below, above, east, north, squared_range, source, tall, fall, intrinsics, pose, out):
    """Ranges at which rays from the agent's center meet the tangent planes of pixels; 0 where that is far off."""
    dx, dy, cx, cy = f4(1) / intrinsics[0], f4(1) / intrinsics[1], intrinsics[2], intrinsics[3]
    r00, r10, r20, r01, r11, r21 = pose[0, 0], pose[1, 0], pose[2, 0], pose[0, 1], pose[1, 1], pose[2, 1]
    r02, r12, r22, t0, t1, t2 = pose[0, 2], pose[1, 2], pose[2, 2], pose[0, 3], pose[1, 3], pose[2, 3]
    c0, c1, c2 = r00 * t0 + r10 * t1 + r20 * t2, r01 * t0 + r11 * t1 + r21 * t2, r02 * t0 + r12 * t1 + r22 * t2
    for i in range(out.shape[0]):
        column, row = source[i] & (LARGEST_SIDE - 1), (source[i] >> ROW_BITS) & (LARGEST_SIDE - 1)
        x, y = (f4(column) + f4(0.5) - cx) * dx, (f4(row) + f4(0.5) - cy) * dy
        across, along = f4(1) + x * x, f4(1) + y * y
        z = inner[i] / math.sqrt(across + y * y)
        z_ahead, z_behind = ahead[i] / math.sqrt(along + (x + dx) ** 2), behind[i] / math.sqrt(along + (x - dx) ** 2)
        z_below, z_above = below[i] / math.sqrt(across + (y + dy) ** 2), above[i] / math.sqrt(across + (y - dy) ** 2)
        # differences of the points beside, and of those below and above
        step, both = z_ahead - z_behind, z_ahead + z_behind
        a0, a1, a2 = x * step + both * dx, y * step, step
        step, both = z_below - z_above, z_below + z_above
        b0, b1, b2 = x * step, y * step + both * dy, step
        n0, n1, n2 = a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0
        g0, g2 = east[i] * tall, north[i] * tall
        q0 = r00 * g0 + r10 * fall + r20 * g2
        q1 = r01 * g0 + r11 * fall + r21 * g2
        q2 = r02 * g0 + r12 * fall + r22 * g2
        carried = (n0 * (x * z + c0) + n1 * (y * z + c1) + n2 * (z + c2)) / (n0 * q0 + n1 * q1 + n2 * q2)
        splatted = math.sqrt(squared_range[i])
        out[i] = carried if abs(carried - splatted) < f4(0.1) * splatted else f4(0)


@kernel
def carry_to_centers(nearest, depths, intrinsics, poses, columns, rows, ranges):
    """Carry the range of each pixel's nearest point along its tangent plane to the pixel's center.

    Args:
        nearest: from :func:`splat_planes`.
        depths: as there.
        intrinsics: as there.
        poses: as there.
        columns: ``(2, wp)``, sine and cosine of each column's azimuth.
        rows: ``(2, hp)``, horizontal and downward part of each row's unit rays.
        ranges: ``(hp, wp)``, the answer; 0 = no point, or one whose plane is met more than a tenth farther or nearer.
    """
    num_cameras, height, width = depths.shape
    found, count = np.empty((num_cameras, 10, columns.shape[1]), np.float32), np.empty(num_cameras, np.int32)
    carried = np.empty(columns.shape[1], np.float32)
    for row in range(rows.shape[1]):
        here = ranges[row]
        here[:] = 0
        gather(nearest[row], depths.reshape(-1), height, width, columns, found, count)
        for slot in range(num_cameras):
            number, each, bits = count[slot], found[slot], found[slot].view(np.int32)
            carry(
                each[0][:number], each[1][:number], each[2][:number], each[3][:number], each[4][:number],
                each[5][:number], each[6][:number], each[7][:number], bits[8][:number],
                rows[0, row], rows[1, row], intrinsics[slot], poses[slot], carried[:number],
            )  # fmt: skip
            for i in range(number):
                here[bits[9, i]] = carried[i]
