"""What the inputs allow: exact correspondences through the solver that turns a model's matches into poses.

Three rows say where a model that matches loses accuracy: ``bound`` takes true matches of the model's cells with true
ranges; ``bound_own_ranges`` true matches with the model's ranges; ``bound_own_matches`` the model's matches with true
ranges. Averaged over all pairs of agents, each pair weighing as much as its matches that agree, and refined in the
bundle of all pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from coopmap.config.model import ModelConfig
from coopmap.evaluation.pairs import average_pairs
from coopmap.geometry.alignment import align
from coopmap.geometry.bundle import bundle
from coopmap.geometry.cells import PARTS, at_centers, by_agent, cell_angle
from coopmap.geometry.pairs import pair_ends
from coopmap.geometry.se3 import relative_pose
from coopmap.losses.cells import TrueMatches, cell_grid, known_points, true_matches
from coopmap.models.addons.matching.cells import (
    SHORTEST_M,
    CellPoints,
    LinesOfSight,
    cell_points,
    down_directions,
    lines_of_sight,
)
from coopmap.models.addons.matching.matches import Correspondences, assignment, correspond
from coopmap.models.addons.matching.poses import PairProblem, pair_problem
from coopmap.models.addons.matching.prior import log_agreement, pair_priors
from coopmap.types import Observation, PairMatches, Prediction, Target
from coopmap.types.agents import views_per_agent, without_neighboring_ticks

TRUE_RANGE_SIGMA = 0.02
"""Of true points, relative to the range: a match's two points are nearest neighbors on one surface, not the same."""


@dataclass(frozen=True)
class Bound:
    """Measures the three rows.

    Attributes:
        model: its patches are the cells; options of its alignment.
        dense_share: of the objective, see :func:`~coopmap.losses.cells.true_matches`.
    """

    model: ModelConfig
    dense_share: float

    @torch.no_grad()
    def measure(
        self,
        observation: Observation,
        prediction: Prediction,
        target: Target,
        of_target: TrueMatches | None = None,
    ) -> dict[str, list[Float[Tensor, "n n 4 4"]]]:
        """``T_i_j`` of the agents of each sample, by method; NaN where the matches determine none.

        Empty for a single agent. The model's own matches and ranges count only if it matches.

        Args:
            observation: what the model was given.
            prediction: of the model.
            target: ground truth.
            of_target: true matches of the model's cells, if they are known from the objective.
        """
        whole, target = target, without_neighboring_ticks(target)
        patch, views = self.model.encoder.patch_size, views_per_agent(target)
        height, width = target.depth.shape[-2:]
        num_cells = views * (height // patch) * (width // patch)
        if target.depth.shape[1] == views:
            return {}
        true = of_target if target is whole else None
        if true is None:
            true = true_matches(target, num_cells, self.dense_share)
        points = _true_points(target, patch)
        angle = cell_angle(observation.rays, patch)
        range_sigma = target.depth.new_full(points.center.shape[:3], TRUE_RANGE_SIGMA)
        tilt, num_agents = self.model.matching.tilt_sigma_deg, points.center.shape[1]
        found = {"bound": (_true_correspondences(true, points), range_sigma)}
        if (matches := prediction.matches) is not None:
            own = cell_points(prediction, observation, patch, self.model.matching.rays)
            views_given = observation.images.shape[1] // num_agents
            priors = pair_priors(observation, views_given) if self.model.matching.prior else None
            agreement = log_agreement(priors, own.center, matches.range_sigma)
            own = CellPoints(own.center.to(points.center), own.parts.to(points.center))
            found["bound_own_ranges"] = _true_correspondences(true, own), matches.range_sigma.to(range_sigma)
            again = _own_matches(matches, agreement, prediction, target, points, self.model)
            found["bound_own_matches"] = again, range_sigma
        lines = _lines(observation, patch, self.model.matching.rays, num_agents)
        down = _of_own_tick(down_directions(observation), num_agents) if self.model.matching.gravity else None
        problems = [pair_problem(each, sigma, angle.to(sigma), tilt, lines, down) for each, sigma in found.values()]
        together = _solved(_side_by_side(problems), num_agents).unflatten(0, (len(problems), -1))
        return {name: list(poses) for name, poses in zip(found, together, strict=True)}


def _side_by_side(problems: Sequence[PairProblem]) -> PairProblem:
    """One problem of all samples of each: what counts in solving it is how many operations are started."""
    most = max(problem.weight.shape[-1] for problem in problems)
    fields: Iterable[Sequence[Any]] = zip(*(_padded(problem, most) for problem in problems), strict=True)
    return PairProblem._make(torch.cat(list(each)) if isinstance(each[0], Tensor) else each[0] for each in fields)


def _padded(problem: PairProblem, num_matches: int) -> PairProblem:
    """With matches of no weight behind the others."""
    missing = num_matches - problem.weight.shape[-1]

    def row(name: str, value: Any) -> Any:
        behind = {"points": 1, "weight": 0, "covariance": 2, "origin": 1}.get(name.partition("_")[0])
        return value if behind is None or value is None else F.pad(value, (0, 0) * behind + (0, missing))

    return PairProblem._make(row(name, value) for name, value in problem._asdict().items())


def _solved(problem: PairProblem, num_agents: int) -> Float[Tensor, "b n n 4 4"]:
    """``T_i_j``, from the bundle where pairs link both agents to the first one."""
    alignment = align(*problem)
    agreeing = torch.where(alignment.degenerate, 0.0, (problem.weight * alignment.inlier).sum(dim=-1))
    averaged = average_pairs(alignment.pose, agreeing, num_agents)
    agents = bundle(averaged[:, 0].to(agreeing.device), (~alignment.degenerate).double(), *problem).cpu()
    together = relative_pose(agents[:, :, None], agents[:, None])
    return torch.where(together.isfinite().flatten(-2).all(dim=-1)[..., None, None], together, averaged)


def _lines(observation: Observation, patch: int, rays: str, num_agents: int) -> LinesOfSight | None:
    lines = lines_of_sight(observation, patch, rays)
    return lines and lines._replace(origin=_of_own_tick(lines.origin, num_agents))


def _of_own_tick(values: Shaped[Tensor, "b v *k"], num_agents: int) -> Shaped[Tensor, "b a *k"]:
    """Those of the sample's own tick; views of neighboring ones follow each agent's."""
    return values[:, :: values.shape[1] // num_agents]


def _true_points(target: Target, patch: int) -> CellPoints:
    """True points nearest to the centers of cells and of their parts; the origin where none is known."""
    centers, known = known_points(target, patch, patch)
    parts, sampled = known_points(target, patch, patch // PARTS)
    center = torch.where(known[..., None], centers, 0.0)
    return CellPoints(center, torch.where(sampled[..., None], parts, 0.0).unflatten(2, (-1, PARTS**2)))


def _true_correspondences(true: TrueMatches, points: CellPoints) -> Correspondences:
    """True matches from either agent's cells to parts of the other's, at the given points."""
    agents = points.center.shape[1]
    i, j = pair_ends(agents, points.center.device)
    forth = _matched(points.center[:, i], points.parts[:, j], true.part[0])
    back = _matched(points.center[:, j], points.parts[:, i], true.part[1])
    weight = torch.cat(true.matched, dim=-1).to(points.center)
    # the search takes the heaviest matches: all over the image, not those of its first rows
    spread = torch.randperm(weight.shape[-1], generator=torch.Generator().manual_seed(0)).to(weight)
    own = torch.arange(true.part[0].shape[-1], device=weight.device).expand_as(true.part[0])
    other = [part.div(PARTS**2, rounding_mode="floor") for part in true.part]
    return Correspondences(
        cells=torch.cat([torch.stack([own, other[0]], dim=-1), torch.stack([other[1], own], dim=-1)], dim=2),
        points_i=torch.cat([forth[0], back[1]], dim=2),
        points_j=torch.cat([forth[1], back[0]], dim=2),
        weight=weight * (1 - 1e-3 * spread / len(spread)),
    )


def _matched(
    centers: Float[Tensor, "b p c 3"], parts: Float[Tensor, "b p c s 3"], part: Int[Tensor, "b p c"]
) -> tuple[Float[Tensor, "b p c 3"], Float[Tensor, "b p c 3"]]:
    return centers, parts.flatten(2, 3).gather(2, part[..., None].expand(-1, -1, -1, 3))


def _own_matches(
    matches: PairMatches,
    agreement: Float[Tensor, "b p c c"] | None,
    prediction: Prediction,
    target: Target,
    points: CellPoints,
    model: ModelConfig,
) -> Correspondences:
    """The model's matches, at true points; of no weight where these are unknown."""
    seen = at_centers(prediction.mask_logits, model.encoder.patch_size).sigmoid()
    seen = by_agent(seen, views_per_agent(target))
    rows, columns = assignment(matches.scores, matches.unmatched)
    grid = cell_grid(target, matches.unmatched.shape[2])
    most = model.matching.max_matches
    found = correspond(rows, columns, matches.query, matches.keys, points, seen, grid, most, agreement)
    known = torch.stack([found.points_i, found.points_j]).norm(dim=-1).amin(dim=0) > SHORTEST_M
    return found._replace(weight=found.weight * known)
