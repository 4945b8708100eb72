"""Configuration of which frames and agents training samples are drawn from; evaluation does not depend on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from coopmap.config.checks import require, require_choice

REFERENCES = ("random", "first", "most_covisible")
BALANCES = ("frames", "scenarios")


@dataclass
class CurriculumConfig:
    """Which pairs of agents training begins with, and which it ends with; linear in between.

    Attributes:
        distance_m: largest horizontal distance from the reference agent, ``[from, to]``; null = always
            ``data.communication_range_m``.
        covisibility: least co-visibility with the reference agent, ``[from, to]``; null = always
            ``data.sampling.min_covisibility``.
        over: share of the run's optimizer steps in which both get from one value to the other.
        over_steps: the same as a number of optimizer steps; null = by ``over``.
    """

    distance_m: list[float] | None = None
    covisibility: list[float] | None = None
    over: float = 0.5
    over_steps: int | None = None

    def __post_init__(self) -> None:
        key = "data.sampling.curriculum"
        for name, values in (("distance_m", self.distance_m), ("covisibility", self.covisibility)):
            require(values is None or len(values) == 2, f"{key}.{name}", values, "two numbers, [from, to], or null")
        distances, shares = self.distance_m or [], self.covisibility or []
        require(all(value > 0 for value in distances), f"{key}.distance_m", distances, "positive distances")
        require(all(0 <= value < 1 for value in shares), f"{key}.covisibility", shares, "shares in [0, 1)")
        require(0 < self.over <= 1, f"{key}.over", self.over, "a share of the run in (0, 1]")
        require(
            self.over_steps is None or self.over_steps >= 1,
            f"{key}.over_steps",
            self.over_steps,
            "at least one optimizer step, or null",
        )

    @property
    def is_on(self) -> bool:
        """Whether anything changes over the run."""
        return self.distance_m is not None or self.covisibility is not None


@dataclass
class SamplingConfig:
    """Which frames and agents training samples are drawn from; validation and test do not depend on it.

    Attributes:
        agents: relative frequency of each number of agents, such as ``{2: 0.3, 3: 0.4, 4: 0.3}``; empty = all numbers
            from ``data.min_agents`` to ``data.max_agents`` that occur, equally often.
        reference: which agent the others are related to: ``random``, ``first`` (the first, by number, that has enough
            partners) or ``most_covisible`` (the one that shares most with its partners).
        min_covisibility: least share of what an agent sees that the reference agent sees too, mean of both directions.
        balance: ``frames`` (each frame equally often) or ``scenarios`` (each scenario equally often, however long).
        foreign_prob: probability that the last agent of a sample comes from another scenario and shares nothing with
            the others; needs ``model.matching``.
        curriculum: pairs to begin and to end with.
    """

    agents: dict[int, float] = field(default_factory=dict)
    reference: str = "random"
    min_covisibility: float = 0.0
    balance: str = "frames"
    foreign_prob: float = 0.0
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)

    def __post_init__(self) -> None:
        require_choice("data.sampling.reference", self.reference, REFERENCES)
        require_choice("data.sampling.balance", self.balance, BALANCES)
        require(0 <= self.foreign_prob <= 1, "data.sampling.foreign_prob", self.foreign_prob, "between 0 and 1")
        least = self.min_covisibility
        require(0 <= least < 1, "data.sampling.min_covisibility", least, "a share in [0, 1)")
        shares = self.curriculum.covisibility or [least]
        require(
            min(shares) >= least,
            "data.sampling.curriculum.covisibility",
            shares,
            f"at least data.sampling.min_covisibility={least:g}",
        )
        positive = all(weight > 0 for weight in self.agents.values())
        require(positive, "data.sampling.agents", self.agents, "a positive frequency for each number of agents")

    @property
    def draws_by_covisibility(self) -> bool:
        """Whether the co-visibility of pairs decides which frames training draws."""
        return self.min_covisibility > 0 or self.curriculum.covisibility is not None

    @property
    def needs_covisibility(self) -> bool:
        """Whether the co-visibility of pairs has to be known."""
        return self.draws_by_covisibility or self.reference == "most_covisible"
