"""Records that pass between data, model, losses and metrics, and the one frame in which they meet."""

from coopmap.types.records import (
    Batch,
    Observation,
    PairMatches,
    Prediction,
    Sample,
    SampleMeta,
    SkippedBatch,
    Target,
    TensorRecord,
)
from coopmap.types.view0 import (
    SMALLEST_DISTANCE,
    Geometry,
    mean_distance,
    mean_range,
    prediction_in_view0,
    truth_in_view0,
)

__all__ = [
    "SMALLEST_DISTANCE",
    "Batch",
    "Geometry",
    "Observation",
    "PairMatches",
    "Prediction",
    "Sample",
    "SampleMeta",
    "SkippedBatch",
    "Target",
    "TensorRecord",
    "mean_distance",
    "mean_range",
    "prediction_in_view0",
    "truth_in_view0",
]
