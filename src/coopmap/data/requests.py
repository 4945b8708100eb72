"""What a dataset is asked for by the samplers."""

from __future__ import annotations

from dataclasses import dataclass, field

from coopmap.data.pairs import PairLimits


@dataclass(frozen=True)
class SampleRequest:
    """What a dataset is asked for.

    Attributes:
        frame: frame number in the split's index.
        num_agents: views of the sample.
        seed: decides agents, order and augmentation; ``None`` asks for the fixed evaluation sample.
        limits: which agents may be put together in a training sample.
    """

    frame: int
    num_agents: int
    seed: int | None = None
    limits: PairLimits = field(default_factory=PairLimits)
