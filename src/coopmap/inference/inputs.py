"""What goes into the model: a folder of images, or a frame of an OPV2V-layout dataset."""

from __future__ import annotations

import difflib
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from coopmap.config.checks import ConfigError, require, require_choice
from coopmap.config.data import DataConfig
from coopmap.config.infer import CAMERA_MODELS, PATCH
from coopmap.data import PanoramaDataset
from coopmap.data.normalization import normalized_images
from coopmap.data.opv2v import (
    SPLIT_FOLDERS,
    AgentMetadata,
    CorruptFrameError,
    DatasetLayoutError,
    FrameRef,
    SplitIndex,
    read_image,
)
from coopmap.data.opv2v.index import OTHER_FOLDERS
from coopmap.data.pose_table import PoseTable
from coopmap.data.views import IMAGE_MEAN, IMAGE_STD
from coopmap.geometry.cameras import PanoramaCamera, camera_rays
from coopmap.geometry.rig import SLOTS
from coopmap.geometry.se3 import relative_pose
from coopmap.inference.source import FrameSource
from coopmap.types import Observation, Sample

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png")
SAME_ASPECT = 0.01
"""Aspect ratios that differ by less than this share count as equal."""
PANORAMA_ASPECT = 4.0


@dataclass(frozen=True, eq=False)
class Views:
    """Views of one scene, the reference first, and what is known about them.

    Attributes:
        observation: what the model sees, without batch dimension.
        images: the same images as 8-bit RGB, to show and to color points with.
        names: of the views: file names, or agents.
        camera_model: ``pinhole``, ``cyl`` or ``mosaic``.
        title: what this is.
        source_from_view: 3x3 matrices that turn pixels of ``images`` into pixels of the files; ``None`` for panoramas
            stitched from several cameras.
        true_pose: ``T_view0_view`` if it is known, for comparison only.
        covered: pixels of panoramas that some camera shows, a fact of calibration; ``None`` = all.
        source: the frame that they come from; ``None`` for a folder of images.
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


def read_images_of_folder(folder: Path | str, camera_model: str = "pinhole", size: int = 518) -> Views:
    """Read all JPEG and PNG images of a folder, in natural order (``9.png`` before ``10.png``).

    The views of one pass have one shape: the most common aspect ratio. Perspective images of another are cropped around
    the center; panoramas must agree, since a cropped one is no longer a panorama.

    Args:
        folder: subfolders are ignored.
        camera_model: ``pinhole`` or ``cyl``.
        size: longest side in pixels, rounded down to whole patches.

    Raises:
        ConfigError: no such folder, no image in it, or panoramas of different shapes.
        CorruptFrameError: an image cannot be read.
    """
    require_choice("camera_model", camera_model, CAMERA_MODELS)
    require(size >= PATCH, "size", size, f"at least one patch of {PATCH} pixels")
    folder = Path(folder).expanduser()
    paths = _list_images(folder)
    images = [read_image(path) for path in paths]
    height, width = _common_size(paths, images, camera_model, size)
    fitted = [fit_image(image, height, width, crop=camera_model == "pinhole") for image in images]
    shown = np.stack([image for image, _ in fitted])
    rays = camera_rays(PanoramaCamera(height, width, np.deg2rad(90))).astype(np.float32)  # a placeholder, not given
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
    )


def natural_order(path: Path) -> tuple[list[tuple[bool, int, str]], str]:
    """Sorting key that counts digits as numbers, upper and lower case alike."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts], path.name


def _list_images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError(f"images={folder}: there is no such folder")
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    paths = sorted((path for path in files if path.suffix.lower() in SUFFIXES), key=natural_order)
    if not paths:
        kinds = ", ".join(sorted({path.suffix or path.name for path in files})) or "nothing"
        raise ConfigError(f"images={folder}: no image ({', '.join(SUFFIXES)}) in this folder; it holds {kinds}")
    return paths


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


def read_frame(frame: Path | str, config: DataConfig, agents: Sequence[str] = (), with_rays: bool = False) -> Views:
    """Read one OPV2V frame as training does, in the layout of views that the model was trained with.

    Args:
        frame: ``ROOT/SPLIT_FOLDER/SCENARIO/FRAME``, for instance ``opv2v/test/2021_08_18_19_48_05/000069``.
        config: layout, panorama, communication range and number of agents; its ``root`` is not used.
        agents: ids, the reference first; by default those that evaluation uses: the first agent with enough others
            in communication range, and its nearest.
        with_rays: the model may use the calibrated rays.

    Raises:
        ConfigError: the frame or an agent is not there.
        DataError: the folder is laid out differently, or a file is unreadable.
    """
    frame = Path(frame).expanduser()
    index = _index_of_frame(frame, tuple(agents), config.include_rsu)
    number = len(index.agents)
    config = replace(config, root=str(index.root), town=None, min_agents=1, keep_in_memory=False, neighbor_ticks=0)
    if agents:  # as requested, at any distance
        room = max(number, config.max_views_per_gpu)
        config = replace(config, max_agents=number, communication_range_m=1e9, max_views_per_gpu=room)
    sample = _read_sample(frame, index, config)
    observation, target, meta = sample.observation, sample.target, sample.meta
    names = meta.agents
    if observation.slot is not None:
        names = tuple(f"{name} {SLOTS[slot]}" for name, slot in zip(names, observation.slot.tolist(), strict=True))
    stitched = sample
    if observation.images.ndim == 5:  # separate cameras, to be fused by the model
        stitched = _read_sample(frame, index, replace(config, layout="panorama"))
    return Views(
        observation=replace(
            observation, depth_prior=None, pose_prior=None, rays_given=torch.full((len(names),), with_rays)
        ),
        images=_shown(stitched),
        names=names,
        camera_model={"cameras": "pinhole", "mosaic": "mosaic"}.get(config.layout, "cyl"),
        title=f"{meta.scenario}, frame {meta.frame}: agents {', '.join(dict.fromkeys(meta.agents))}",
        true_pose=relative_pose(target.pose[:1], target.pose),
        covered=target.non_ambiguous,
        source=FrameSource(
            index, FrameRef(index.split, meta.scenario, meta.frame, tuple(dict.fromkeys(meta.agents))), target
        ),
    )


def _read_sample(frame: Path, index: SplitIndex, config: DataConfig) -> Sample:
    """The only frame of an index, without augmentation and ground-truth depth."""
    dataset = PanoramaDataset(index, PoseTable.build(index), NoDepth(), config, augment=False)
    if len(dataset) == 0:
        raise CorruptFrameError(frame, "; ".join(dataset.poses.skipped) or "no agent can be read")
    sample = dataset[0]
    if not isinstance(sample, Sample):
        raise CorruptFrameError(frame, "; ".join(sample.skipped))
    return sample


def _shown(sample: Sample) -> UInt8[np.ndarray, "v h w 3"]:
    """The images that the model sees, as 8-bit RGB; black where no camera looks."""
    values = sample.observation.images.permute(0, 2, 3, 1).numpy() * IMAGE_STD + IMAGE_MEAN
    shown = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    shown[~sample.target.non_ambiguous.numpy()] = 0
    return shown


def _index_of_frame(frame: Path, agents: tuple[str, ...], include_rsu: bool) -> SplitIndex:
    """An index of only this frame; its agents in the requested order."""
    frame = frame.absolute()
    name = frame.name.removesuffix(".yaml")
    scenario, split_folder = frame.parent, frame.parent.parent
    splits = {name: split for split, names in OTHER_FOLDERS.items() for name in names}
    splits = {folder: split for split, folder in SPLIT_FOLDERS.items()} | splits
    layout = f"Expected frame=ROOT/{{{','.join(splits)}}}/SCENARIO/FRAME"
    if split_folder.name not in splits:
        raise DatasetLayoutError(frame, f"'{split_folder.name}' is not the folder of a split", layout)
    if not scenario.is_dir():
        raise DatasetLayoutError(scenario, "there is no such scenario", layout)
    folders = {path.name for path in scenario.iterdir() if path.is_dir() and re.fullmatch(r"-?\d+", path.name)}
    present = sorted(
        (agent for agent in folders if (scenario / agent / f"{name}.yaml").is_file()),
        key=lambda agent: (agent[0] == "-", abs(int(agent))),
    )
    if not present:
        frames = sorted({path.stem for agent in folders for path in (scenario / agent).glob("*.yaml")})
        near = difflib.get_close_matches(name, frames, n=1, cutoff=0)
        hint = f" (nearest: {near[0]})" if near else ""
        raise ConfigError(f"frame={frame}: no agent of this scenario has a file {name}.yaml{hint}")
    for agent in agents:
        if agent not in present:
            raise ConfigError(
                f"agents={','.join(agents)}: no agent {agent} in this frame; there are {', '.join(present)}"
            )
    if len(set(agents)) < len(agents):
        raise ConfigError(f"agents={','.join(agents)}: an agent is named twice")
    chosen = agents or tuple(agent for agent in present if include_rsu or agent[0] != "-")
    if not chosen:
        raise ConfigError(f"frame={frame}: only road-side units ({', '.join(present)}); name them with agents=...")
    return SplitIndex(
        root=split_folder.parent,
        split=splits[split_folder.name],
        folder=split_folder.name,
        scenarios=np.char.encode(np.array([scenario.name]), "utf-8"),
        agents=np.array(chosen, dtype=np.bytes_),
        frame_names=np.array([name], dtype=np.bytes_),
        frame_scenario=np.zeros(1, dtype=np.int32),
        agent_start=np.array([0, len(chosen)], dtype=np.int32),
        frame_agents=np.arange(len(chosen), dtype=np.int32),
    )


class NoDepth:
    """A depth source without depth: inference needs no ground truth."""

    is_dense = True

    def first_path(self, ref: FrameRef, agent: str) -> Path:
        """There is none."""
        raise FileNotFoundError("inference reads no depth")

    def paths(self, ref: FrameRef, agent: str) -> list[Path]:
        """See :class:`~coopmap.data.opv2v.DepthSource`."""
        return []

    def read(self, ref: FrameRef, agents: Mapping[str, AgentMetadata]) -> dict[str, Float32[np.ndarray, "k h w"]]:
        """Zeros of the cameras' size."""
        return {
            agent: np.zeros((len(data.rig.intrinsics), *data.rig.image_size), np.float32)
            for agent, data in agents.items()
        }

    def describe(self) -> str:
        """One line for the log."""
        return "no depth"
