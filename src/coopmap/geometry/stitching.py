"""Camera images drawn into a panorama by a warp (OpenCV)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from coopmap.geometry.panorama import PanoramaSpec, PanoramaWarp
from coopmap.geometry.rig import Rig

AREA_FILTER_BELOW = 0.75
"""Images this much denser than the panorama are area-filtered first, so that the warp does not alias."""


@dataclass(frozen=True, eq=False)
class Stitching:
    """How a warp is applied to images of one size; maps are in OpenCV's fixed-point format.

    Attributes:
        image_size: ``(height, width)`` of the cameras' images.
        reduced_size: to which they are area-filtered first.
        maps: where each panorama pixel lies in the reduced images, stacked.
        blend_at: flat panorama pixels into which a second camera is blended.
        blend_maps: where they lie, padded to a table.
        blend_weight: weight of the second camera.
    """

    image_size: tuple[int, int]
    reduced_size: tuple[int, int]
    maps: tuple[np.ndarray, np.ndarray]
    blend_at: Int[np.ndarray, " n"]
    blend_maps: tuple[np.ndarray, np.ndarray]
    blend_weight: Float32[np.ndarray, "n 1"]


def stitching(warp: PanoramaWarp, rig: Rig, spec: PanoramaSpec) -> Stitching:
    """Prepare a warp for images of the rig's size."""
    reduced = reduced_size(rig, spec)
    scale = np.array(reduced[::-1]) / np.array(rig.image_size[::-1])
    return Stitching(
        image_size=rig.image_size,
        reduced_size=reduced,
        maps=_maps(warp.pixel, warp.winner, scale, reduced),
        blend_at=warp.blend_at.astype(np.intp),
        blend_maps=_maps(warp.blend_pixel, warp.blend_camera, scale, reduced),
        blend_weight=warp.blend_weight[:, None],
    )


def stitch(
    prepared: Stitching, images: UInt8[np.ndarray, "k h w 3"], gains: Float[np.ndarray, " k"] | None = None
) -> UInt8[np.ndarray, "hp wp 3"]:
    """Stitch the cameras' images; black where no camera looks.

    Args:
        prepared: from :func:`stitching`.
        images: RGB, in slot order, of the rig's image size.
        gains: a factor for each camera's brightness.

    Raises:
        ValueError: if the images are not of the rig's size.
    """
    if images.shape[1:3] != prepared.image_size:
        raise ValueError(f"expected images of {prepared.image_size}, got {images.shape}")
    atlas = _atlas(images, prepared.reduced_size, gains)
    panorama = cv2.remap(atlas, *prepared.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    flat = panorama.reshape(-1, 3)
    if count := len(prepared.blend_at):
        other = cv2.remap(atlas, *prepared.blend_maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        first, second = flat[prepared.blend_at], other.reshape(-1, 3)[:count]
        blended = first + (second.astype(np.float32) - first) * prepared.blend_weight
        flat[prepared.blend_at] = np.rint(blended).astype(np.uint8)
    return panorama


def reduced_size(rig: Rig, spec: PanoramaSpec) -> tuple[int, int]:
    """``(height, width)`` that images are area-filtered to before the warp, so that it does not alias.

    A whole fraction of the size where one is near enough: OpenCV averages whole blocks ten times as fast.
    """
    height, width = rig.image_size
    density = spec.camera.pixels_per_radian / float(rig.intrinsics[0, 0, 0])
    if density >= AREA_FILTER_BELOW:
        return height, width
    factor = round(1 / density)
    if abs(factor * density - 1) < WHOLE_FACTOR_WITHIN and height % factor == width % factor == 0:
        return height // factor, width // factor
    return max(1, round(height * density)), max(1, round(width * density))


WHOLE_FACTOR_WITHIN = 0.1


def warp_cameras(
    pixel: Float32[np.ndarray, "k hp wp 2"],
    images: UInt8[np.ndarray, "k h w 3"],
    rig: Rig,
    spec: PanoramaSpec,
    gains: Float[np.ndarray, " k"] | None = None,
) -> UInt8[np.ndarray, "k hp wp 3"]:
    """Warp every camera on its own; what it does not see is undefined.

    Args:
        pixel: where each camera shows the panorama's pixels, from :func:`coopmap.geometry.panorama.look_up`, finite.
        images: RGB, in slot order.
        rig: the cameras.
        spec: the panorama.
        gains: a factor for each camera's brightness.
    """
    reduced = reduced_size(rig, spec)
    scale = np.array(reduced[::-1]) / np.array(rig.image_size[::-1])
    camera = np.broadcast_to(np.arange(len(images))[:, None, None], pixel.shape[:-1])
    maps = _maps(pixel.reshape(-1, *pixel.shape[2:]), camera.reshape(-1, pixel.shape[2]), scale, reduced)
    warped = cv2.remap(_atlas(images, reduced, gains), *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return warped.reshape(*pixel.shape[:-1], 3)


def _atlas(
    images: UInt8[np.ndarray, "k h w 3"], size: tuple[int, int], gains: Float[np.ndarray, " k"] | None
) -> UInt8[np.ndarray, "kh w 3"]:
    """Images one below the other, area-filtered to ``size``."""
    num_images, height, width, _ = images.shape
    if size == (height, width) and gains is None:
        return images.reshape(-1, width, 3)
    atlas = np.empty((num_images, *size, 3), np.uint8)
    for slot, image in enumerate(images):
        small = image
        if size != (height, width):
            small = cv2.resize(image, size[::-1], dst=atlas[slot], interpolation=cv2.INTER_AREA)
        if gains is not None:
            brighten(small, gains[slot], out=atlas[slot])
    return atlas.reshape(-1, size[1], 3)


def brighten(
    image: UInt8[np.ndarray, "h w 3"], gain: float, out: UInt8[np.ndarray, "h w 3"] | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """An image times its gain, rounded; a third of the time of a table of levels."""
    return cv2.convertScaleAbs(image, dst=out, alpha=gain)


OUTSIDE_ROW = -8.0


def _maps(
    pixel: Float32[np.ndarray, "*b 2"],
    camera: Int[np.ndarray, "*b"],
    scale: Float[np.ndarray, " 2"],
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Fixed-point maps for a bilinear lookup that never reaches into a neighboring tile of the atlas.

    Where the camera is -1 they point out of it.
    """
    # cv2.remap counts from pixel centers, hence the 0.5
    u, v = pixel[..., 0] * np.float32(scale[0]), pixel[..., 1] * np.float32(scale[1])
    for place, limit in ((u, size[1] - 1), (v, size[0] - 1)):
        place -= np.float32(0.5)
        np.clip(place, 0, limit, out=place)
    v += camera.astype(np.float32) * np.float32(size[0])
    np.copyto(v, OUTSIDE_ROW, where=camera < 0)
    if u.ndim != 2:  # cv2 limits either side of a map to 32767, so lists of pixels are laid out as tables
        shape = -(-u.size // 1024), 1024
        u, v = np.resize(u, shape), np.resize(v, shape)
    if not u.size:
        return u, v
    return cv2.convertMaps(u, v, cv2.CV_16SC2)
