"""Views of which the model's mask leaves next to nothing."""

from __future__ import annotations

import torch

from coopmap.inference.inputs import Views
from coopmap.inference.runner import Inference
from coopmap.training.scenes import LEAST_MASK


def masked_out(views: Views, result: Inference) -> list[str]:
    """A sentence about the views of which the mask keeps less than :data:`LEAST_MASK` of what cameras see, if any."""
    covered = torch.ones_like(result.non_ambiguous) if views.covered is None else views.covered.cpu()
    kept = (result.non_ambiguous & covered).sum(dim=(1, 2)) / covered.sum(dim=(1, 2)).clamp(min=1)
    emptied = {name: share for name, share in zip(views.names, kept.tolist(), strict=True) if share < LEAST_MASK}
    if not emptied:
        return []
    return [
        f"the model's mask keeps at most {max(emptied.values()):.1%} of what cameras see of {', '.join(emptied)}: next "
        "to none of their points are in points.ply and scene.html; those of all pixels are points_world of "
        "predictions.npz"
    ]
