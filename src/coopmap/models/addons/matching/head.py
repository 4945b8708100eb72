"""The matching head: describes cells, compares those of every pair of agents, aligns what matches."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from coopmap.config.model import MatchingConfig
from coopmap.geometry.alignment import Alignment, align
from coopmap.geometry.cells import PARTS, at_centers, by_agent, cell_angle
from coopmap.geometry.pairs import pair_ends
from coopmap.models.addons.base import AddOn, Trunk
from coopmap.models.addons.matching.cells import cell_points, down_directions, features_of_cells, lines_of_sight
from coopmap.models.addons.matching.matches import Correspondences, assignment, correspond
from coopmap.models.addons.matching.poses import PairProblem, lengthened, pair_problem, with_aligned_poses
from coopmap.models.addons.matching.prior import combined, log_agreement, pair_priors
from coopmap.models.layers import LayerNorm
from coopmap.types import Observation, PairMatches, Prediction
from coopmap.types.agents import cameras_per_agent

INITIAL_SHARPNESS = 10.0
INITIAL_RANGE_SIGMA = 0.3
INITIAL_LOG_PRECISION = 1.5
"""Of the information in matches; about where runs of some hundred steps end."""
PACE = 10.0
"""Adam moves a parameter by no more than the learning rate: a short run could not change a precision otherwise, and its
confidence would lag behind what it has learned."""
LARGEST_LOG_LENGTHENING = 0.5
UNKNOWN_TILT_DEG = 10.0
"""Standard deviation of relative roll and pitch of pose priors where the configuration states none."""
FINE_DIM = 32
"""Width of the descriptors that tell the parts of a cell from one another."""
PAIR_FEATURES = 7
"""Numbers from which a pair's confidence is read; see :func:`pair_features`."""
LATER = ("log_precision", "log_odds", "log_lengthening")
"""Parameters that weights of runs from before they were learned lack: information and lengths are what matches say."""


class Matching(AddOn):
    """Matches between the cells of all pairs of agents, and relative poses from them.

    Args:
        cfg: options.
        encoder_dim: width of the image encoder's tokens.
        shared_dim: width of the multi-view transformer's tokens.
        feature_dim: width of the dense head's fused maps.
        last_layer: its last block.
        patch_size: side of a patch in pixels.
        pose_from: ``head``, ``alignment`` or ``both``: where the poses of the views come from in evaluation.
    """

    def __init__(
        self,
        cfg: MatchingConfig,
        encoder_dim: int,
        shared_dim: int,
        feature_dim: int,
        last_layer: int,
        patch_size: int,
        pose_from: str,
    ) -> None:
        super().__init__()
        self.cfg, self.patch_size, self.pose_from = cfg, patch_size, pose_from
        self.layers = tuple(cfg.layers) or (last_layer,)
        dim = shared_dim * len(self.layers) + (encoder_dim if cfg.encoder else 0)
        self.norm = LayerNorm(dim)
        self.descriptor = nn.Linear(dim, cfg.dim)
        self.query = nn.Linear(dim, FINE_DIM)
        self.keys = nn.Linear(dim, PARTS**2 * FINE_DIM)
        self.unmatched = nn.Linear(dim, 1)
        self.log_range_sigma = nn.Linear(dim, 1)
        self.log_sharpness = nn.Parameter(torch.full((2,), math.log(INITIAL_SHARPNESS)))
        self.confidence = nn.Sequential(nn.Linear(PAIR_FEATURES, 32), nn.GELU(), nn.Linear(32, 2))
        self.log_precision = nn.Parameter(torch.zeros(PAIR_FEATURES + 1))
        nn.init.constant_(self.log_precision[-1:], INITIAL_LOG_PRECISION / PACE)
        self.log_odds = nn.Parameter(torch.zeros(PAIR_FEATURES + 1))
        self.log_lengthening = nn.Parameter(torch.zeros(PAIR_FEATURES + 1))
        for layer, bias in ((self.unmatched, 0.0), (self.log_range_sigma, math.log(INITIAL_RANGE_SIGMA))):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, bias)
        if cfg.dense:
            self.keep = features_of_cells
            self.feature_norm = LayerNorm(feature_dim)
            self.feature_query = nn.Linear(feature_dim, FINE_DIM, bias=False)
            self.feature_keys = nn.Linear(feature_dim, FINE_DIM, bias=False)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Add zeros for what :data:`LATER` names, where the head was trained."""
        if f"{prefix}log_sharpness" in state_dict:
            for name in LATER:
                state_dict.setdefault(f"{prefix}{name}", torch.zeros(PAIR_FEATURES + 1))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def after_decoding(self, prediction: Prediction, trunk: Trunk, observation: Observation) -> Prediction:
        """The prediction with ``matches``, and in evaluation with the poses of ``pose_from``.

        In training every parameter takes part (DDP): with a single agent, too, and whatever the objective asks of
        matches.
        """
        if self.training:
            nothing = 0.0 * parameters_to_vector(self.parameters()).sum()
            prediction = replace(prediction, scale=prediction.scale + nothing)
        views = cameras_per_agent(observation)
        num_agents = trunk.encoded.shape[1] // views
        if num_agents < 2:
            return prediction
        tokens = by_agent(self._features(trunk), views)
        matches, problem = self._match(prediction, tokens, observation, trunk)
        prediction = replace(prediction, matches=matches)
        if self.training or self.pose_from == "head":
            return prediction
        return with_aligned_poses(prediction, observation, views, self.pose_from, None if self.cfg.prior else problem)

    def _features(self, trunk: Trunk) -> Float[Tensor, "b v n d"]:
        parts = [trunk.layers[layer] for layer in self.layers] + ([trunk.encoded] if self.cfg.encoder else [])
        return self.norm(torch.cat([part.float() for part in parts], dim=-1))

    def _describe_places(
        self, tokens: Float[Tensor, "b a c d"], trunk: Trunk
    ) -> tuple[Float[Tensor, "b a c f"], Float[Tensor, "b a c s f"]]:
        """Descriptors of the centers of cells and of their parts."""
        query, keys = self.query(tokens), self.keys(tokens).unflatten(-1, (PARTS**2, FINE_DIM))
        if trunk.features is not None:
            of_views = self.feature_norm(trunk.features).unflatten(0, trunk.encoded.shape[:2])
            features = by_agent(of_views, of_views.shape[1] // tokens.shape[1])
            query = query + self.feature_query(features[..., 0, :])
            keys = keys + self.feature_keys(features[..., 1:, :])
        return self.log_sharpness[1].exp() * F.normalize(query, dim=-1), F.normalize(keys, dim=-1)

    def _match(
        self,
        prediction: Prediction,
        tokens: Float[Tensor, "b a c d"],
        observation: Observation,
        trunk: Trunk,
    ) -> tuple[PairMatches, PairProblem]:
        scores, unmatched = self._scores(tokens), self.unmatched(tokens)[..., 0]
        query, keys = self._describe_places(tokens, trunk)
        points = cell_points(prediction, observation, self.patch_size, self.cfg.rays)
        seen = at_centers(prediction.mask_logits, self.patch_size).detach().sigmoid()
        seen = by_agent(seen, cameras_per_agent(observation))
        sigma = self.log_range_sigma(tokens)[..., 0].clamp(-4.0, 1.0).exp()
        rows, columns = assignment(scores, unmatched)
        priors = pair_priors(observation, cameras_per_agent(observation)) if self.cfg.prior else None
        agreement = log_agreement(priors, points.center, sigma)
        found = correspond(rows, columns, query, keys, points, seen, trunk.grid, self.cfg.max_matches, agreement)
        angle = cell_angle(observation.rays, self.patch_size)
        lines = lines_of_sight(observation, self.patch_size, self.cfg.rays)
        down = down_directions(observation) if self.cfg.gravity else None
        problem = pair_problem(found, sigma, angle, self.cfg.tilt_sigma_deg, lines, down)
        alignment = align(*problem)
        features = pair_features(rows, columns, found, alignment)
        confidence, shared = self.confidence(features).unbind(-1)
        confidence = confidence + PACE * _linear(features, self.log_odds)
        lengthening = self._lengthening(features)
        alignment = self._with_precision(lengthened(alignment, lengthening), features)
        with_prior = None
        if priors is not None:
            tilt_deg = None if self.cfg.gravity else self.cfg.tilt_sigma_deg  # of gravity, not of roads
            tilt_sigma = math.radians(tilt_deg or UNKNOWN_TILT_DEG)
            with_prior = combined(alignment, priors, confidence.detach().sigmoid(), tilt_sigma)
        matches = PairMatches(
            scores=scores,
            unmatched=unmatched,
            query=query,
            keys=keys,
            range_sigma=sigma,
            pose=alignment.pose,
            lengthening=lengthening,
            information=alignment.information,
            degenerate=alignment.degenerate,
            confidence_logit=confidence,
            covisibility_logit=shared,
            matched=found.cells,
            weight=found.weight,
            inlier=alignment.inlier,
            combined=with_prior,
            prior_known=None if priors is None else priors.known,
        )
        return matches, problem.lengthened(lengthening)

    def _lengthening(self, features: Float[Tensor, "b p f"]) -> Float[Tensor, "b p"]:
        """Factor of a pair's translation that makes up for how matches lean.

        A match is where its thing is to be expected, which lies between where it is and where it would be if both
        agents stood at one place. Loose ranges let all of them agree on agents that are too near each other: by a tenth
        after 600 steps, with true ranges by a twenty-fifth, with true matches not at all.
        """
        return _linear(features, self.log_lengthening).clamp(-LARGEST_LOG_LENGTHENING, LARGEST_LOG_LENGTHENING).exp()

    def _with_precision(self, alignment: Alignment, features: Float[Tensor, "b p f"]) -> Alignment:
        """The alignment with as much information as its pose turns out to have.

        What matches contain of it counts each by its confidence, which says how probable it is among all cells, and as
        if no two erred alike.
        """
        log_precision = PACE * _linear(features, self.log_precision)
        return alignment._replace(information=alignment.information.detach() * log_precision.exp()[..., None, None])

    def _scores(self, tokens: Float[Tensor, "b a c d"]) -> Float[Tensor, "b p c c"]:
        descriptor = F.normalize(self.descriptor(tokens), dim=-1)
        first, second = pair_ends(tokens.shape[1], tokens.device)
        return self.log_sharpness[0].exp() * descriptor[:, first] @ descriptor[:, second].mT


def _linear(features: Float[Tensor, "b p f"], weight: Float[Tensor, " f1"]) -> Float[Tensor, "b p"]:
    """Of features and, last, of 1."""
    return features @ weight[:-1] + weight[-1]


def pair_features(
    rows: Float[Tensor, "b p c c1"], columns: Float[Tensor, "b p c c1"], found: Correspondences, alignment: Alignment
) -> Float[Tensor, "b p f"]:
    """What tells whether a pair's pose can be trusted and how much its agents share; without gradient.

    The shares of cells that match anything, seen from either agent, as logits; the weight of all matches and of those
    that the alignment kept; the weaker directions of what the alignment knows.
    """
    with torch.no_grad():
        shares = [1 - part[..., -1].exp().mean(dim=-1) for part in (rows, columns)]
        kept = (found.weight * alignment.inlier).sum(dim=-1)
        total = found.weight.sum(dim=-1)
        # the trace of the inverse would say more, but singular matrices have none
        rotation, translation = (
            alignment.information[..., part, part].diagonal(dim1=-2, dim2=-1) for part in (slice(0, 3), slice(3, 6))
        )
        features = [
            *(torch.logit(share.clamp(1e-3, 1 - 1e-3)) for share in shares),
            total.clamp(min=1e-6).log(),
            kept.clamp(min=1e-6).log(),
            kept / total.clamp(min=1e-6),
            rotation.amin(dim=-1).clamp(min=1e-6).log() / 4,
            translation.amin(dim=-1).clamp(min=1e-6).log() / 4,
        ]
        return torch.stack([feature.to(rows) for feature in features], dim=-1)
