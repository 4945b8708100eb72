"""What becomes of a run's matches under other ways to average pairs and to bundle them, without training again.

    python experiments/study/solver.py RUN [OVERRIDE ...]

of a run of a matching model that answers from images alone, on ``validate``; frames with another number of agents than
the first one are left out. The network runs once over the split, and its alignments are solved again:

- pairs as they are aligned, each alone;
- averaged, and then bundled, by powers of the confidence;
- composed along the chains of surest pairs (a maximum spanning tree), and bundled from there;
- bundled from the true poses, which no start can beat;
- all of it as long as the matches say, without the learned lengthening.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.config.evaluate import EvaluateConfig
from coopmap.evaluation.data import EvaluationData
from coopmap.evaluation.subject import open_subject
from coopmap.geometry.bundle import bundle
from coopmap.geometry.pairs import pair_ends
from coopmap.geometry.pose_averaging import average_relative_poses, over_agents
from coopmap.geometry.se3 import invert, relative_pose, rotation_angle
from coopmap.models.addons.matching import head
from coopmap.models.addons.matching.poses import PairProblem, pair_weights
from coopmap.report.tables import Column, Row, Section, Table
from coopmap.types import Observation, PairMatches, Prediction

POWERS = (1, 2, 4, 6)
SUCCESS_M, SUCCESS_DEG = (1, 2, 3), 5


class Frames(NamedTuple):
    """What the network found in frames of ``n`` agents, pairs ``i < j``.

    Attributes:
        true: poses of the agents in one frame.
        pose: ``T_i_j`` of each pair.
        weight: confidence; 0 where a pair determines no pose.
        problem: the matches that the bundle takes.
        lengthening: what the translations of ``pose`` and ``problem`` contain of it, a factor.
    """

    true: Float[Tensor, "b n 4 4"]
    pose: Float[Tensor, "b p 4 4"]
    weight: Float[Tensor, "b p"]
    problem: PairProblem
    lengthening: Float[Tensor, "b p"]


@torch.no_grad()
def collect(run: str, overrides: list[str]) -> Frames:
    """Frames of the split."""
    given: list[tuple[PairMatches, PairProblem]] = []

    def keep(
        prediction: Prediction, _: Observation, views: int, pose_from: str, problem: PairProblem | None = None
    ) -> Prediction:
        if prediction.matches is None or problem is None or pose_from != "alignment":
            sys.exit(f"{run}: expected a model that answers by matching, from images alone")
        given.append((prediction.matches, problem))
        return prediction

    head.with_aligned_poses = keep  # what is solved there is solved here, in many ways
    subject = open_subject(EvaluateConfig(run=run, split="val"), ["data.max_val_frames=null", *overrides])
    module, data, found = subject.module.eval(), EvaluationData(subject.config, "val"), list[Frames]()
    for number, loaded in enumerate(data.val_dataloader()):
        batch = data.on_after_batch_transfer(loaded, 0)
        given.clear()
        module(module.with_inputs(batch.observation, number))
        if given and (not found or given[0][0].unmatched.shape[1] == found[0].true.shape[1]):
            found.append(joined(*given[0], batch.target.pose))
    true, pose, weight, problems, lengthening = zip(*found, strict=True)
    return Frames(torch.cat(true), torch.cat(pose), torch.cat(weight), _together(problems), torch.cat(lengthening))


def joined(matches: PairMatches, problem: PairProblem, true: Float[Tensor, "b v 4 4"]) -> Frames:
    """One batch, with the true poses of all views."""
    views = true.shape[1] // matches.unmatched.shape[1]
    pose, lengthening = matches.pose.double(), matches.lengthening.double()
    return Frames(true[:, ::views].double(), pose, pair_weights(matches), problem, lengthening)


def _together(problems: Sequence[PairProblem]) -> PairProblem:
    columns = zip(*problems, strict=True)
    return PairProblem(*(torch.cat(part) if isinstance(part[0], Tensor) else part[0] for part in columns))


def in_matched_units(frames: Frames) -> Frames:
    """Without the lengthening."""
    pose, back = frames.pose.clone(), frames.lengthening.reciprocal()
    pose[..., :3, 3] *= back[..., None]
    return frames._replace(pose=pose, problem=frames.problem.lengthened(back.float()), lengthening=back**0)


def averaged(frames: Frames, power: int) -> Float[Tensor, "b n 4 4"]:
    """Poses of the agents, averaged by a power of the confidence."""
    pose, weight = over_agents(frames.pose, frames.weight**power, frames.true.shape[1])
    return average_relative_poses(pose[:, None], weight[:, None])


def along_surest(frames: Frames) -> Float[Tensor, "b n 4 4"]:
    """Poses composed along a maximum spanning tree; NaN for agents that no pair links to the first."""
    agents, pairs = frames.true.shape[1], zip(frames.pose, frames.weight, strict=True)
    return torch.stack([_tree(pose, weight, agents) for pose, weight in pairs])


def _tree(pose: Float[Tensor, "p 4 4"], weight: Float[Tensor, " p"], agents: int) -> Float[Tensor, "n 4 4"]:
    """Prim's algorithm from agent 0."""
    ends = pair_ends(agents).T.tolist()
    found = {0: torch.eye(4, dtype=torch.float64)}
    while True:
        edges = [
            (float(weight[pair]), pair)
            for pair, (i, j) in enumerate(ends)
            if ((i in found) != (j in found)) and weight[pair] > 0
        ]
        if not edges:
            missing = torch.full((4, 4), torch.nan, dtype=torch.float64)
            return torch.stack([found.get(agent, missing) for agent in range(agents)])
        pair = max(edges)[1]
        i, j = ends[pair]
        if i in found:
            found[j] = found[i] @ pose[pair]
        else:
            found[i] = found[j] @ invert(pose[pair])


def bundled(frames: Frames, start: Float[Tensor, "b n 4 4"], power: int) -> Float[Tensor, "b n 4 4"]:
    """Poses of the bundle from a start."""
    return bundle(start, frames.weight**power, *frames.problem)


def variants(frames: Frames) -> Iterator[tuple[str, Float[Tensor, "b n 4 4"]]]:
    """Ways to answer, by name."""
    for power in POWERS:
        start = averaged(frames, power)
        yield f"averaged, power {power}", start
        yield "... and bundled", bundled(frames, start, power)
    start = along_surest(frames)
    yield "along the surest pairs", start
    for power in POWERS:
        yield f"... and bundled, power {power}", bundled(frames, start, power)
    for power in (1, 4):
        yield f"bundled from the true poses, power {power}", bundled(frames, frames.true, power)


def row(name: str, pose: Float[Tensor, "b p 4 4"], true: Float[Tensor, "b p 4 4"]) -> Row:
    """Errors; a pair without an answer is no success."""
    meters = (pose[..., :3, 3] - true[..., :3, 3]).norm(dim=-1).nan_to_num(torch.inf)
    degrees = rotation_angle(pose[..., :3, :3].mT @ true[..., :3, :3]).rad2deg().nan_to_num(180)
    within = [f"{((meters < limit) & (degrees < SUCCESS_DEG)).double().mean():.0%}" for limit in SUCCESS_M]
    return Row([name, f"{meters.median():.2f}", f"{degrees.median():.2f}", *within])


def section(title: str, frames: Frames) -> Section:
    """All variants of one set of matches."""
    agents = frames.true.shape[1]
    i, j = pair_ends(agents)
    true = relative_pose(frames.true[:, i], frames.true[:, j])
    rows = [row("pairs alone", frames.pose, true)]
    for name, pose in variants(frames):
        rows.append(row(name, relative_pose(pose[:, i], pose[:, j]), true))
    return Section(rows, title)


def main() -> None:
    """Print the table."""
    if not sys.argv[1:]:
        sys.exit(__doc__)
    frames = collect(sys.argv[1], sys.argv[2:])
    length = frames.lengthening.median()
    sections = [section(f"as answered, lengthened by a factor of {length:.2f} in the median", frames)]
    if length != 1:
        sections.append(section("as long as the matches say", in_matched_units(frames)))
    names = ("", "m", "deg", *(f"< {limit} m" for limit in SUCCESS_M))
    columns = [Column(name, align="right" if name else "left") for name in names]
    print(Table(f"{len(frames.true)} frames of {frames.true.shape[1]} agents", columns, sections).markdown())


if __name__ == "__main__":
    main()
