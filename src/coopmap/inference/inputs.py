"""What goes into the model; of a folder of images."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from coopmap.config.checks import ConfigError, require, require_choice
from coopmap.config.infer import CAMERA_MODELS, PATCH
from coopmap.data.normalization import normalized_images
from coopmap.data.opv2v import (
    FrameError,
    read_image,
)
from coopmap.data.opv2v.errors import printable
from coopmap.geometry.cameras import PanoramaCamera, camera_rays
from coopmap.inference.source import FrameSource
from coopmap.types import Observation

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png")
SAME_ASPECT = 0.01
"""Aspect ratios that differ by less than this share count as equal."""
PANORAMA_ASPECT = 4.0
PANORAMA = PanoramaCamera(252, 1008, np.deg2rad(90))


@dataclass(frozen=True, eq=False)
class Views:
    """Views of one scene, the reference first, and what is known about them.

    Attributes:
        observation: what the model sees, without batch dimension.
        images: the same images as 8-bit RGB, to show and to color points with.
        names: of the views: file names, or agents.
        camera_model: ``pinhole``, ``cyl`` or ``mosaic``.
        title: what this is.
        source_from_view: 3x3 matrices that turn pixels of ``images`` into pixels of the files, upright as EXIF has
            them; ``None`` for panoramas stitched from several cameras.
        true_pose: ``T_view0_view`` if it is known, for comparison only.
        covered: pixels of panoramas that some camera shows, a fact of calibration; ``None`` = all.
        source: the frame that they come from; ``None`` for a folder of images.
        left_out: files and cars that are not among the views, each with the reason.
    """

    observation: Observation
    images: UInt8[np.ndarray, "v h w 3"]
    names: tuple[str, ...]
    camera_model: str
    title: str
    source_from_view: Float[np.ndarray, "v 3 3"] | None = None
    true_pose: Float[Tensor, "v 4 4"] | None = None
    covered: Bool[Tensor, "v h w"] | None = None
    source: FrameSource | None = None
    left_out: tuple[str, ...] = ()


def read_images_of_folder(
    folder: Path | str, camera_model: str = "pinhole", size: int = 518, panorama: PanoramaCamera = PANORAMA
) -> Views:
    """Read all JPEG and PNG images of a folder, in natural order (``9.png`` before ``10.png``).

    The views of one pass have one shape: the most common aspect ratio. Perspective images of another are cropped around
    the center; panoramas must agree, since a cropped one is no longer a panorama. An image that cannot be read, and a
    file of another kind, is left out; the views say which.

    Args:
        folder: subfolders are ignored.
        camera_model: ``pinhole`` or ``cyl``.
        size: longest side in pixels, rounded down to whole patches.
        panorama: field of view and projection that panoramas are taken to have, by a model that matches along their
            rays.

    Raises:
        ConfigError: no such folder, no image in it, or panoramas of different shapes.
        CorruptFrameError: no image can be read.
    """
    require_choice("camera_model", camera_model, CAMERA_MODELS)
    require(size >= PATCH, "size", size, f"at least one patch of {PATCH} pixels")
    folder = Path(folder).expanduser()
    found, left_out = _list_images(folder)
    paths, images, damaged = [], [], list[FrameError]()
    for path in found:
        try:
            images.append(read_image(path))
            paths.append(path)
        except FrameError as error:
            damaged.append(error)
    if not images:
        raise damaged[0]
    left_out += [str(error) for error in damaged]
    height, width = _common_size(paths, images, camera_model, size)
    fitted = [fit_image(image, height, width, crop=camera_model == "pinhole") for image in images]
    shown = np.stack([image for image, _ in fitted])
    # never given to the network; of perspective images, a placeholder
    rays = camera_rays(replace(panorama, height=height, width=width)).astype(np.float32)
    log.info("%d images of %s, as %d x %d pixels (width x height)", len(paths), folder, width, height)
    return Views(
        observation=Observation(
            images=_normalized(shown),
            rays=torch.from_numpy(rays).expand(len(paths), -1, -1, -1),
            rays_given=torch.zeros(len(paths), dtype=torch.bool),
        ),
        images=shown,
        names=tuple(path.name for path in paths),
        camera_model=camera_model,
        title=f"{folder.name or folder}: {len(paths)} images",
        source_from_view=np.stack([matrix for _, matrix in fitted]),
        left_out=tuple(left_out),
    )


def natural_order(path: Path) -> tuple[list[tuple[bool, int, str]], str]:
    """Sorting key that counts digits as numbers, upper and lower case alike."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts], path.name


def _list_images(folder: Path) -> tuple[list[Path], list[str]]:
    """Images in natural order, and what else there is."""
    if folder.is_file():
        raise ConfigError(
            f"images={folder}: this is a file; give the folder that holds the images, here {folder.parent}"
        )
    if not folder.is_dir():
        raise ConfigError(f"images={folder}: there is no such folder")
    shown = [path for path in folder.iterdir() if not path.name.startswith(".")]
    files = [path for path in shown if not path.is_dir()]
    paths = sorted((path for path in files if path.suffix.lower() in SUFFIXES), key=natural_order)
    kinds = ", ".join(SUFFIXES)
    if not paths:
        raise ConfigError(f"images={folder}: no image ({kinds}) in this folder; {_holds(shown, files)}")
    others = sorted(set(files) - set(paths), key=natural_order)
    return paths, [printable(f"{path}: no image ({kinds})") for path in others]


def _holds(shown: Sequence[Path], files: Sequence[Path]) -> str:
    """What is in a folder without images, and what to give instead."""
    folders = sorted((path for path in shown if path.is_dir()), key=natural_order)
    what = sorted({path.suffix or path.name for path in files})
    if folders:
        names = ", ".join(path.name for path in folders[:3]) + (", ..." if len(folders) > 3 else "")
        what.append(f"{len(folders)} folder{'s' if len(folders) > 1 else ''} ({names}), which are not searched")
    with_images = (path for path in folders if any(file.suffix.lower() in SUFFIXES for file in path.iterdir()))
    fitting = next(with_images, None)
    advice = f"give images={fitting}" if fitting is not None else "give a folder of images"
    return printable(f"it holds {', '.join(what) or 'nothing'}; {advice}")


def image_sizes(folder: Path | str, names: Sequence[str]) -> list[tuple[int, int]]:
    """Height and width of files, as :func:`read_images_of_folder` reads them."""
    return [read_image(Path(folder).expanduser() / name).shape[:2] for name in names]


def _common_size(paths: Sequence[Path], images: Sequence[np.ndarray], camera_model: str, size: int) -> tuple[int, int]:
    """Height and width for all views."""
    aspects = np.array([image.shape[1] / image.shape[0] for image in images])
    groups = np.rint(np.log(aspects) / SAME_ASPECT).astype(int)
    common = Counter(groups.tolist()).most_common(1)[0][0]  # the first one, if several are equally common
    aspect = float(aspects[groups == common][0])
    odd = [path.name for path, other in zip(paths, aspects, strict=True) if abs(np.log(other / aspect)) > SAME_ASPECT]
    if odd and camera_model == "cyl":
        raise ConfigError(
            f"images={paths[0].parent}: panoramas of different shapes ({', '.join(odd[:3])} against width "
            f"{aspect:.3g} x height); scale them alike, or run them apart"
        )
    if odd:
        log.warning(
            "%d of %d images are cropped around the center to the most common aspect ratio, %.3g:1: %s",
            len(odd), len(paths), aspect, ", ".join(odd[:5]) + (", ..." if len(odd) > 5 else ""),
        )  # fmt: skip
    if camera_model == "cyl" and abs(np.log(aspect / PANORAMA_ASPECT)) > SAME_ASPECT:
        log.warning(
            "the panoramas are %.3g times as wide as high; models trained on the default panorama (4 times, 360 x 90 "
            "degrees) expect %g",
            aspect, PANORAMA_ASPECT,
        )  # fmt: skip
    longest = size // PATCH
    shortest = max(1, round(longest * min(aspect, 1 / aspect)))
    patches = (shortest, longest) if aspect >= 1 else (longest, shortest)
    return PATCH * patches[0], PATCH * patches[1]


def fit_image(
    image: UInt8[np.ndarray, "h w 3"], height: int, width: int, crop: bool = True
) -> tuple[UInt8[np.ndarray, "hv wv 3"], Float[np.ndarray, "3 3"]]:
    """Scale an image, with antialiasing, so that it covers ``height x width``, and crop the center.

    Args:
        image: RGB.
        height: wanted.
        width: wanted.
        crop: keep the pixels square and crop; otherwise stretch.

    Returns:
        The image, and the matrix from its (continuous) pixel coordinates to those of the given one.
    """
    scale = np.array([width / image.shape[1], height / image.shape[0]])
    if crop:
        scale[:] = scale.max()
    covering = np.maximum(np.rint(scale * image.shape[1::-1]).astype(int), [width, height])
    shrinks = (covering <= image.shape[1::-1]).all()
    scaled = cv2.resize(image, covering.tolist(), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    left, top = (covering - [width, height]) // 2
    exact = covering / image.shape[1::-1]
    matrix = np.diag([*(1 / exact), 1.0])
    matrix[:2, 2] = [left, top] / exact
    return np.ascontiguousarray(scaled[top : top + height, left : left + width]), matrix


def _normalized(images: UInt8[np.ndarray, "v h w 3"]) -> Float[Tensor, "v 3 h w"]:
    return normalized_images(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
