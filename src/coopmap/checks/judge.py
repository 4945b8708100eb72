"""Verdicts that take many frames: what depth means, signs of angles, swapped cameras, coverage."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coopmap.checks.axes import FLIPS, best_assignment, cords_of, flipped, mounting
from coopmap.checks.facts import AgentFacts
from coopmap.checks.problems import FrameKey, Problem
from coopmap.config.data import DataConfig
from coopmap.data.depth_probe import TRUSTED_SHARE
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT, SLOTS

SPREAD_M = 0.02
"""Mountings of one kind of car agree better than this."""
MUCH_SMALLER = 0.3
MISMATCH_BELOW = 0.85
"""A sweep of another frame has less than this share of the points that agree in an ordinary frame of the data."""
COPY_BELOW = 0.95
"""The same, of a sweep that comes twice."""
FLIP_GAIN = 0.05
SWAP_GAIN = 0.05
STRONG_GAIN, MIN_FRAMES = 0.15, 3
MIN_EVIDENCE, SIGMAS = 20, 4.0
"""Outlines of sweeps in images: a strong gain in so many frames of an agent, or any in so many of a split; and so many
standard errors. Steps in dense depth are told more easily: any gain in as many frames as make an agent."""
COVERAGE_WITHIN = 0.02
MIN_MASK = 0.05
MAX_ANGLE_DEG = 10.0


@dataclass
class Judgment:
    """Problems, and what they were looked for in.

    Attributes:
        problems: found.
        examined: for each kind, the agents in frames that could have had it.
        notes: what could be told about axes, depth and cameras, and from what.
    """

    problems: list[Problem] = field(default_factory=list)
    examined: dict[str, set[FrameKey]] = field(default_factory=lambda: defaultdict(set))
    notes: dict[str, str] = field(default_factory=dict)


def judge(
    config: DataConfig, facts: Sequence[AgentFacts], depth_kind: str, explained: Collection[FrameKey]
) -> Judgment:
    """All verdicts on agents in frames.

    Args:
        config: of the data.
        facts: of all agents in frames.
        depth_kind: what dense depth is taken for; empty without any.
        explained: what has been found wrong already; that its sweep does not fit is no news.
    """
    result = Judgment()
    known = _judge_mounting(config, facts, result) | set(explained)
    _judge_cameras(config, facts, result)
    if depth_kind:
        _judge_depth(config, facts, depth_kind, known, result)
    _judge_outlines(config, facts, result)
    return result


def _judge_mounting(config: DataConfig, facts: Sequence[AgentFacts], result: Judgment) -> set[FrameKey]:
    """Signs with which the cameras' mounting is the same on all cars and slopes; gives what has wrong ones."""
    known = [item for item in facts if item.pose is not None and item.rig is not None and not item.is_rsu]
    if len(known) < 2:
        return set()
    cords = np.stack([cords_of(item.pose, item.rig) for item in known if item.pose is not None and item.rig])
    as_recorded = mounting(cords)
    common = np.median(as_recorded, axis=0)
    gap = np.abs(as_recorded - common).max(axis=(1, 2, 3))
    slope = np.rad2deg(np.arcsin(np.abs(np.sin(np.deg2rad(cords[:, 0][:, [3, 5]]))).max()))
    result.notes["axes by mounting"] = (
        f"steepest slope {slope:.1f} deg; the mounting varies by {np.median(gap):.2g} m or rad as recorded"
        + ("; too flat to tell the signs of pitch and roll" if slope < 0.5 else "")
    )
    wrong: set[FrameKey] = set()
    for flip in FLIPS:
        turned = mounting(flipped(cords, flip))
        own_gap = np.abs(turned - np.median(turned, axis=0)).max(axis=(1, 2, 3))
        is_all = np.median(gap) > SPREAD_M and np.median(own_gap) < MUCH_SMALLER * np.median(gap)
        to_common = np.abs(turned - common).max(axis=(1, 2, 3))
        one_by_one = (gap > SPREAD_M) & (to_common < MUCH_SMALLER * gap)
        for item, is_wrong, before in zip(known, one_by_one, gap, strict=True):
            if (is_all or is_wrong) and item.key not in wrong:
                detail = (
                    f"with the other sign of {_angle(flip)} the cameras are mounted alike in all frames; as "
                    f"recorded they differ by up to {before:.2f} m or rad"
                )
                result.problems.append(Problem(flip, item.path, detail, (item.key,), config.root))
                wrong.add(item.key)
        result.examined[flip] = {item.key for item in known}
    return wrong


def _judge_depth(
    config: DataConfig, facts: Sequence[AgentFacts], kind: str, known: set[FrameKey], result: Judgment
) -> None:
    """Kind and unit of dense depth, and sweeps that do not fit it."""
    measured = [item for item in facts if item.scale is not None]
    trusted = [item for item in measured if item.scale and item.scale.share >= TRUSTED_SHARE]
    if not measured:
        result.notes["depth against LiDAR"] = "no sweeps beside dense depth: kind and unit unknown"
        return
    root = str(Path(config.depth_root or config.root).expanduser())
    usual = float(np.median([item.scale.share for item in trusted if item.scale])) if trusted else TRUSTED_SHARE
    names = {"z": "along the optical axis (z)", "ray": "range along the ray"}
    kinds = {item.scale.kind for item in trusted if item.scale}
    units = {item.scale.unit for item in trusted if item.scale}
    result.notes["depth against LiDAR"] = (
        f"files hold {' and '.join(names[found] for found in sorted(kinds))} in {' and '.join(sorted(units))}; "
        f"{usual:.0%} of the points agree within 5 %"
    )
    for item in trusted:
        assert item.scale is not None
        folder = str(Path(root, *item.key.above(1), item.key.frame))
        if item.scale.kind != kind:
            detail = f"data.depth.kind={kind}, but by the LiDAR the files hold {names[item.scale.kind]}"
            result.problems.append(Problem("depth_kind", folder, detail, (item.key,), root))
        if item.scale.unit != "meters":
            detail = f"by the LiDAR the files hold {item.scale.unit} ({item.scale.factor:.4g} per meter)"
            result.problems.append(Problem("depth_unit", folder, detail, (item.key,), root))
    for name in ("depth_kind", "depth_unit"):
        result.examined[name] = {item.key for item in trusted}
    _judge_flips(config, measured, known, result)
    flagged = known | {key for problem in result.problems for key in problem.keys}
    copies = Counter(item.sweep_content for item in measured)
    for item in measured:
        assert item.scale is not None
        limit = MISMATCH_BELOW if copies[item.sweep_content] == 1 else COPY_BELOW
        if item.scale.share < limit * usual and item.key not in flagged:
            path = str(Path(item.path).with_suffix(".pcd"))
            detail = f"{item.scale.share:.0%} of its points agree with depth, {usual:.0%} are usual"
            result.problems.append(Problem("lidar_mismatch", path, detail, (item.key,), config.root))
    result.examined["lidar_mismatch"] = {item.key for item in measured}


def _judge_flips(config: DataConfig, measured: Sequence[AgentFacts], known: set[FrameKey], result: Judgment) -> None:
    """Whether LiDAR points hit the surfaces in depth better with another sign."""
    gains = [
        ({flip: float(np.mean([item.flips[flip] - item.flips[""] for item in items])) for flip in FLIPS}, items)
        for items in _groups([item for item in measured if item.flips])
    ]
    means = {flip: float(np.mean([gain[flip] for gain, _ in gains])) for flip in FLIPS}
    shown = ", ".join(f"{_angle(flip)} {value:+.2f}" for flip, value in means.items())
    flat = "; no slopes, so the signs of pitch and roll do not matter here" if _is_flat(means) else ""
    result.notes["axes by LiDAR in depth"] = f"share of agreeing points with the other sign of {shown}{flat}"
    for gain, items in gains:
        best = max(gain, key=lambda flip: gain[flip])
        if gain[best] > FLIP_GAIN:
            detail = f"{gain[best]:.0%} more LiDAR points agree with depth if {_angle(best)} has the other sign"
            result.problems += [
                Problem(best, item.path, detail, (item.key,), config.root) for item in items if item.key not in known
            ]


def _angle(flip: str) -> str:
    return flip.partition("_")[0]


def _is_flat(gains: dict[str, float]) -> bool:
    return all(abs(gains[flip]) < 0.005 for flip in ("pitch_sign", "roll_sign"))


def _judge_outlines(config: DataConfig, facts: Sequence[AgentFacts], result: Judgment) -> None:
    """Whether image edges lie at the sweep's outlines, or better with other signs; where there is no dense depth.

    Told for each agent where the evidence is strong, else for a whole split.
    """
    measured = [item for item in facts if item.outlines_match is not None]
    for items in _groups(measured):
        for kind, detail in _outline_verdicts(items, STRONG_GAIN, MIN_FRAMES):
            result.problems += [Problem(kind, item.path, detail, (item.key,), config.root) for item in items]
    for kind in (*FLIPS, "cameras_swapped"):
        result.examined[kind] |= {item.key for item in measured}
    flagged = {key for problem in result.problems for key in problem.keys}
    for split, items in _by_split(measured).items():
        strength = _gains(items, lambda item: item.flips[""]).mean()
        flips = {flip: _flip_gains(items, flip).mean() for flip in FLIPS}
        shown = ", ".join(f"{_angle(flip)} {gain:+.2f}" for flip, gain in flips.items())
        result.notes[f"axes by LiDAR in images, {split}"] = (
            f"edges at outlines {strength:+.2f} (0 = chance); with the other sign of {shown}"
        )
        folder = str(Path(config.root, items[0].key.folder))
        rest = [item for item in items if item.key not in flagged]
        result.problems += [
            Problem(kind, folder, detail) for kind, detail in _outline_verdicts(rest, FLIP_GAIN, MIN_EVIDENCE)
        ]


def _outline_verdicts(items: Sequence[AgentFacts], least: float, number: int) -> Iterator[tuple[str, str]]:
    """Kinds and details of what fits better than what is recorded."""
    if len(items) < number:
        return
    flips = {flip: _flip_gains(items, flip) for flip in FLIPS}
    best = max(flips, key=lambda flip: flips[flip].mean())
    if _is_certain(flips[best], least, number):
        detail = f"image edges at outlines of the sweep are {flips[best].mean():.2f} stronger with the other sign"
        yield best, detail
    known = [item.outlines_match for item in items if item.outlines_match is not None]
    matches = [match for match in known if np.isfinite(match).all()]
    if matches:
        order, gains = _order_of(matches)
        if _is_certain(gains, least, number):
            yield "cameras_swapped", _swaps(order, "the LiDAR in")


def _flip_gains(items: Sequence[AgentFacts], flip: str) -> np.ndarray:
    return _gains(items, lambda item: item.flips[flip] - item.flips[""])


def _gains(items: Sequence[AgentFacts], value: Callable[[AgentFacts], float]) -> np.ndarray:
    gains = np.array([value(item) for item in items])
    return gains[np.isfinite(gains)] if np.isfinite(gains).any() else np.zeros(1)


def _is_certain(gains: np.ndarray, least: float, number: int) -> bool:
    if len(gains) < number:
        return False
    mean = float(gains.mean())
    return mean > least and mean > SIGMAS * float(gains.std(ddof=1)) / np.sqrt(len(gains))


def _judge_cameras(config: DataConfig, facts: Sequence[AgentFacts], result: Judgment) -> None:
    """Whether images show what the depth of their own camera has; if not, the LiDAR tells which of the two is wrong.

    Told for each agent that the LiDAR or several frames agree on; where agents have few frames, for a split as a whole.
    """
    matched = [item for item in facts if item.match is not None]
    root = str(Path(config.depth_root or config.root).expanduser())
    few: list[AgentFacts] = []
    for items in _groups(matched):
        swap = _swap_of(items)
        if swap.is_depth:
            for item in items:
                path = str(Path(root, *item.key.above(1), item.key.frame))
                result.problems.append(Problem("depth_swapped", path, swap.detail, (item.key,), root))
        elif swap.is_certain:
            for item in items:
                result.problems.append(Problem("cameras_swapped", item.path, swap.detail, (item.key,), config.root))
        elif len(items) < MIN_FRAMES:
            few += items
    for items in _by_split(few).values():
        swap = _swap_of(items)
        if swap.is_certain:
            folder = str(Path(config.root, items[0].key.folder))
            result.problems.append(Problem("cameras_swapped", folder, swap.detail))
    result.examined["cameras_swapped"] |= {item.key for item in facts if item.rig is not None}
    result.examined["depth_swapped"] = {item.key for item in matched}
    if matched:
        rows = [np.diag(item.match).mean() for item in matched if item.match is not None]
        result.notes["images against depth"] = f"edges correlate by {np.mean(rows):.2f} with steps in depth"


@dataclass(frozen=True)
class Swap:
    """Which camera's depth the images of some frames fit best.

    Attributes:
        detail: in words.
        is_certain: they fit it better than their own in one frame as in another: a blank facade is no swap.
        is_depth: the LiDAR says that the depth of these frames belongs to other cameras.
    """

    detail: str
    is_certain: bool
    is_depth: bool


def _swap_of(items: Sequence[AgentFacts]) -> Swap:
    order, gains = _order_of([item.match for item in items if item.match is not None])
    shares = [item.swapped_share - item.scale.share for item in items if item.swapped_share and item.scale]
    is_depth = float(gains.mean()) > SWAP_GAIN and bool(shares) and float(np.mean(shares)) > FLIP_GAIN
    return Swap(_swaps(order, "depth of"), _is_certain(gains, SWAP_GAIN, MIN_FRAMES), is_depth)


def _order_of(matches: Sequence[np.ndarray]) -> tuple[tuple[int, ...], np.ndarray]:
    """Which camera each image fits best over all frames, and how much better than its own in each."""
    stacked = np.stack(matches)
    order, _ = best_assignment(stacked.mean(axis=0))
    rows = np.arange(len(order))
    return order, (stacked[:, rows, order] - stacked[:, rows, rows]).mean(axis=1)


def _swaps(order: Sequence[int], what: str) -> str:
    pairs = [
        f"images camera{OPV2V_CAMERA_OF_SLOT[image]} ({SLOTS[image]}) fit {what} camera{OPV2V_CAMERA_OF_SLOT[camera]}"
        for image, camera in enumerate(order)
        if image != camera
    ]
    return "; ".join(pairs)


def judge_views(config: DataConfig, facts: Sequence[AgentFacts], depth_is_right: bool) -> Iterator[Problem]:
    """Coverage, masks, rays and sizes of the views of each split; of depth that is wrong nothing more is said."""
    for items in _by_split([item for item in facts if item.views is not None]).values():
        folder = str(Path(config.root, items[0].key.folder))
        covered = float(np.mean([item.coverage for item in items]))
        valid = float(np.mean([item.valid for item in items]))
        for name, value in (("non_ambiguous", covered), ("valid", valid)):
            if value < MIN_MASK and (depth_is_right or name != "valid"):
                yield Problem("masks", folder, f"mean of {name} is {value:.3f}, expected at least {MIN_MASK}")
        if max(item.ray_defect or 0.0 for item in items) > 1e-3:
            yield Problem("rays", folder, "target rays are no unit vectors")
        angle = float(np.mean([item.angle_deg for item in items]))
        if angle > MAX_ANGLE_DEG and depth_is_right:
            yield Problem("rays", folder, f"content lies {angle:.1f} deg from nominal rays on average")
        yield from _judge_coverage(config, folder, covered, items)
        per_agent, size = expected_views(config)
        for item in items:
            if item.views != per_agent or item.view_size != (size or item.view_size):
                detail = f"{item.views} views of {item.view_size} per agent, expected {per_agent} of {size}"
                yield Problem("views", item.path, detail, (item.key,))


def expected_views(config: DataConfig) -> tuple[int, tuple[int, int] | None]:
    """Views per agent, and their ``(height, width)`` where the configuration says it outright."""
    if config.layout == "cameras":
        return len(SLOTS), (config.cameras.height, config.cameras.width)
    is_panorama = config.layout in ("panorama", "grouped", "warped")
    return 1, (config.panorama.height, config.panorama.width) if is_panorama else None


def _judge_coverage(config: DataConfig, folder: str, covered: float, items: Sequence[AgentFacts]) -> Iterator[Problem]:
    expected = [item.expected_coverage for item in items if item.expected_coverage is not None]
    if not expected:
        return
    predicted, panorama = float(np.mean(expected)), config.panorama
    surface = "infinite" if panorama.surface == "infinite" else f"{panorama.surface} {panorama.radius_m:g} m"
    rig = next(item.rig for item in items if item.rig is not None)
    aspect, wanted = rig.image_size[1] / rig.image_size[0], panorama.width / panorama.height
    if abs(covered - predicted) > COVERAGE_WITHIN and panorama.legacy_crop:
        detail = (
            f"crop: {covered:.3f} covered; whole images of this rig cover {predicted:.3f} with surface={surface}. "
            "data.panorama.legacy_crop=false shows all that the cars see"
        )
        yield Problem("crop", "data.panorama.legacy_crop", detail)
    elif abs(covered - predicted) > COVERAGE_WITHIN:
        detail = f"{covered:.3f} covered, but this rig predicts {predicted:.3f} with surface={surface}"
        yield Problem("coverage", folder, detail)
    elif abs(aspect / wanted - 1) < COVERAGE_WITHIN:
        detail = (
            f"crop: images are {rig.image_size[1]} x {rig.image_size[0]}, the panorama's aspect: they were cropped "
            f"before, and {covered:.3f} is covered"
        )
        yield Problem("crop", folder, detail)


def _by_split(items: Sequence[AgentFacts]) -> dict[str, list[AgentFacts]]:
    found: dict[str, list[AgentFacts]] = defaultdict(list)
    for item in items:
        found[item.key.split].append(item)
    return found


def _groups(items: Sequence[AgentFacts]) -> list[list[AgentFacts]]:
    """The frames of each agent of each scenario."""
    found: dict[tuple[str, ...], list[AgentFacts]] = defaultdict(list)
    for item in items:
        found[item.key.above(1)].append(item)
    return list(found.values())
