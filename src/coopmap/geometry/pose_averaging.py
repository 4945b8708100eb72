"""Absolute poses from relative poses of many pairs, each with errors of its own, by averaging on SE(3).

Rotations first (a spectral start, then reweighted least squares in the tangent space of SO(3)), then translations
(reweighted linear least squares). Both solve the same small linear problem, positions on a graph from differences along
its edges. It is so small that what counts is how many operations are started.

Sources: Arie-Nachimson et al., Global Motion Estimation from Point Matches, 2012 (spectral start); Chatterjee and
Govindu, Robust Relative Rotation Averaging, 2018 (L1, then a redescending kernel).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.geometry.pairs import pair_ends
from coopmap.geometry.se3 import invert, nearest_rotation
from coopmap.geometry.step_algebra import cayley, constants_of, ends_of_edges

L1_STEPS = 8
KERNEL_STEPS = 8
KERNEL_WIDTH = 3.0
"""Residuals beyond this many (robust) standard deviations lose most of their weight."""
ROTATION_FLOOR_RAD = 2e-3
TRANSLATION_FLOOR_M = 0.02
"""Residuals below count as equal: far below the accuracy of a model."""
TINY = 1e-12
UNIQUE = 1e-9
"""Gap below the third largest eigenvalue of all relative rotations (which lie in [-1, 1]) up to which they do not
determine absolute ones. Rounding gives 1e-15; agents linked to the others only by weights of 1e-4 give 1e-4."""


def average_relative_poses(
    relative: Float[Tensor, "b p v v 4 4"], weight: Float[Tensor, "b p v v"]
) -> Float[Tensor, "b v 4 4"]:
    """Poses in view 0's frame from (several, contradictory) relative poses.

    Args:
        relative: ``T_i_j`` at ``[..., i, j, :, :]``; the diagonal is ignored.
        weight: at least 0; 0 where there is no measurement, as wherever a pose or weight is not finite.

    Returns:
        ``T_0_j``, float64; exact where the measurements agree with one another. NaN for views that no chain of
        measurements links to view 0, and where rotations cancel, so that they have no mean.
    """
    relative, weight = relative.double(), weight.double()
    num_views = weight.shape[-1]
    measured = relative.isfinite().flatten(-2).all(dim=-1) & weight.isfinite()
    measured &= ~torch.eye(num_views, dtype=torch.bool, device=weight.device)
    weight = torch.where(measured, weight, 0.0)
    relative = torch.where(measured[..., None, None], relative, torch.eye(4, dtype=weight.dtype, device=weight.device))
    known = _linked_to_view0(weight)
    weight = weight * (known[:, None, :, None] & known[:, None, None])

    start, unique = _spectral_rotations(relative[..., :3, :3], weight)
    rotation = _average_rotations(relative[..., :3, :3], start, weight)
    translation = _average_translations(relative[..., :3, 3], rotation, weight)
    pose = torch.zeros(*rotation.shape[:2], 4, 4, dtype=rotation.dtype, device=rotation.device)
    pose[..., :3, :3], pose[..., :3, 3], pose[..., 3, 3] = rotation, translation, 1.0
    known &= unique & unique[:, :1]
    known[:, 0] = True
    return torch.where(known[..., None, None], invert(pose[:, :1]) @ pose, torch.nan)


def over_agents(
    pose: Float[Tensor, "b p 4 4"], weight: Float[Tensor, "b p"], num_agents: int
) -> tuple[Float[Tensor, "b n n 4 4"], Float[Tensor, "b n n"]]:
    """Poses ``T_i_j`` and weights of pairs ``i < j`` (ordered 01, 02, ..., 12, ...) as matrices, float64.

    Elsewhere the identity, and weight 0.
    """
    first, second = pair_ends(num_agents, pose.device)
    poses = torch.eye(4, dtype=torch.float64, device=pose.device).repeat(len(pose), num_agents, num_agents, 1, 1)
    weights = torch.zeros(len(pose), num_agents, num_agents, dtype=torch.float64, device=pose.device)
    poses[:, first, second], weights[:, first, second] = pose.double(), weight.double()
    return poses, weights


def _linked_to_view0(weight: Float[Tensor, "b p v v"]) -> Bool[Tensor, "b v"]:
    """Views connected by a chain of measurements, in either direction."""
    neighbors = (weight > 0).any(dim=1)
    neighbors = (neighbors | neighbors.mT).double()
    linked = torch.zeros(weight.shape[0], weight.shape[-1], dtype=torch.bool, device=weight.device)
    linked[:, :1] = True
    for _ in range(weight.shape[-1] - 1):
        linked = linked | ((neighbors @ linked.double()[..., None])[..., 0] > 0)
    return linked


def _average_rotations(
    measured: Float[Tensor, "b p v v 3 3"], rotation: Float[Tensor, "b v 3 3"], weight: Float[Tensor, "b p v v"]
) -> Float[Tensor, "b v 3 3"]:
    """``R_world_i`` in any world frame, from ``R_i_j`` and a start."""
    for step in range(L1_STEPS + KERNEL_STEPS):
        # the identity where a measurement agrees; in world axes, so that corrections of i and j subtract
        disagreement = rotation[:, None, :, None] @ measured @ rotation[:, None, None].mT
        turn, angle = _turns(disagreement)
        correction = _positions(turn, _reweighted(angle, weight, ROTATION_FLOOR_RAD, step))
        rotation = cayley(correction.flatten(0, 1)).unflatten(0, correction.shape[:2]) @ rotation
    return rotation


def _turns(rotation: Float[Tensor, "*b 3 3"]) -> tuple[Float[Tensor, "*b 3"], Float[Tensor, "*b"]]:
    """Rotation vectors and their lengths in [0, pi]; a turn by pi exactly has the length, but no direction."""
    numbers = rotation.flatten(-2) @ constants_of(rotation).turn
    sine = torch.linalg.vector_norm(numbers[..., :3], dim=-1)
    angle = torch.atan2(sine, numbers[..., 3] - 0.5)
    return numbers[..., :3] * (angle / sine.clamp(min=TINY))[..., None], angle


def _spectral_rotations(
    measured: Float[Tensor, "b p v v 3 3"], weight: Float[Tensor, "b p v v"]
) -> tuple[Float[Tensor, "b v 3 3"], Bool[Tensor, "b v"]]:
    """The leading eigenvectors of the (degree-normalized) matrix of all relative rotations, projected on rotations.

    Also returns which views have a unique one; the others get the identity.
    """
    batch, _, num_views = measured.shape[:3]
    blocks = (weight[..., None, None] * measured).sum(dim=1)
    blocks = blocks + blocks.transpose(1, 2).mT  # R_j_i is the transpose of R_i_j
    degree = (weight.sum(dim=1) + weight.sum(dim=1).mT).sum(dim=-1).clamp(min=TINY).rsqrt()
    blocks = blocks * (degree[:, :, None] * degree[:, None])[..., None, None]
    matrix = blocks.permute(0, 1, 3, 2, 4).reshape(batch, 3 * num_views, 3 * num_views)
    values, vectors = torch.linalg.eigh(matrix)  # ascending
    vectors = vectors[..., -3:].reshape(batch, num_views, 3, 3)
    handedness = torch.linalg.det(vectors).sum(dim=1).sign()  # eigenvectors come with any sign
    vectors = vectors * torch.where(handedness < 0, -1.0, 1.0)[:, None, None, None]
    vectors = vectors / vectors.norm(dim=(-2, -1), keepdim=True).clamp(min=TINY)  # small where the weights are
    rotation = nearest_rotation(vectors).mT
    unique = rotation.isfinite().flatten(2).all(dim=-1)
    if num_views > 1:
        unique &= (values[:, -3] - values[:, -4] > UNIQUE)[:, None]
    identity = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    return torch.where(unique[..., None, None], rotation, identity), unique


def _average_translations(
    measured: Float[Tensor, "b p v v 3"], rotation: Float[Tensor, "b v 3 3"], weight: Float[Tensor, "b p v v"]
) -> Float[Tensor, "b v 3"]:
    difference = (rotation[:, None, :, None] @ measured[..., None])[..., 0]
    position = _positions(difference, weight)
    for step in range(L1_STEPS + KERNEL_STEPS):
        residual = difference - (position[:, None, None] - position[:, None, :, None])
        length = torch.linalg.vector_norm(residual, dim=-1)
        position = _positions(difference, _reweighted(length, weight, TRANSLATION_FLOOR_M, step))
    return position


def _positions(difference: Float[Tensor, "b p v v 3"], weight: Float[Tensor, "b p v v"]) -> Float[Tensor, "b v 3"]:
    """``x`` with mean 0 that minimizes the weighted squares of ``x_j - x_i - difference_ij``."""
    ends = ends_of_edges(weight.shape[1], weight.shape[2], weight)
    weighted = weight.flatten(1)[..., None] * ends
    matrix = weighted.mT @ ends
    degree = matrix.diagonal(dim1=1, dim2=2)
    alone = torch.diag_embed(degree == 0)  # views without a measurement stay at 0
    # a common shift changes nothing; this term, of the size of the others, keeps the mean at 0
    shift = (degree.mean(dim=1) / weight.shape[-1]).clamp(min=TINY)[:, None, None]
    return torch.linalg.solve_ex(matrix + alone + shift, weighted.mT @ difference.flatten(1, 3))[0]


def _reweighted(
    length: Float[Tensor, "b p v v"], weight: Float[Tensor, "b p v v"], floor: float, step: int
) -> Float[Tensor, "b p v v"]:
    """Weights of the next problem, from the residuals' lengths: the L1 norm's, later Geman and McClure's."""
    if step < L1_STEPS:
        scaled = weight / length.clamp(min=floor)
    else:
        known = torch.where(weight > 0, length, torch.nan)
        deviation = 1.4826 * known.flatten(1).nanmedian(dim=1).values[:, None, None, None]
        scaled = weight * ((length / (KERNEL_WIDTH * deviation.nan_to_num().clamp(min=floor))).square() + 1).pow(-2)
    return scaled / scaled.flatten(1).amax(dim=1).clamp(min=TINY)[:, None, None, None]
