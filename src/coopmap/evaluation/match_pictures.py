"""Pictures of matches: the best, the median and the worst of the co-visible pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from coopmap.evaluation.data import EvaluationData
from coopmap.evaluation.records import SampleRecord
from coopmap.metrics.aggregate import COVISIBLE
from coopmap.report.files import write_bytes
from coopmap.training.module import PoseLearner
from coopmap.training.pictures import draw_pair
from coopmap.types import Batch, Sample
from coopmap.viz.packing import png


class MatchPicture(NamedTuple):
    """A picture of a pair.

    Attributes:
        kind: ``best``, ``median`` or ``worst``.
        title: with the sample.
        image: RGB.
    """

    kind: str
    title: str
    image: UInt8[np.ndarray, "h w 3"]


def match_pictures(module: PoseLearner, records: Sequence[SampleRecord], data: EvaluationData) -> list[MatchPicture]:
    """Pictures of pairs by their translation error; none of a model that does not match."""
    ranked = sorted(
        (
            (trans_m, number, pair)
            for number, record in enumerate(records)
            for pair, trans_m in enumerate(record.pairs["trans_m"])
            if math.isfinite(trans_m)
            and record.pairs["covisibility"][pair] > COVISIBLE
            and record.pairs["confidence"][pair] == record.pairs["confidence"][pair]
        )
    )
    if not ranked:
        return []
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    module.eval()
    pictures = []
    for kind, place in places.items():
        _, number, pair = ranked[place]
        meta = records[number].meta
        sample = data.read_again(meta)
        if not isinstance(sample, Sample):
            continue
        image = draw_pair(module, Batch.collate([sample]).to(module.device), 0, pair)
        if image is not None:
            pictures.append(MatchPicture(kind, f"The {kind} pair: {meta.scenario} / {meta.frame}", image))
    return pictures


def write_match_pictures(pictures: Sequence[MatchPicture], folder: Path) -> None:
    """``matches_best.png`` and so on."""
    for picture in pictures:
        write_bytes(png(picture.image, effort=3), folder / f"matches_{picture.kind}.png")
