"""The table of docs/memory.md: planned memory for released models, what is trained, agents, layouts and strategies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from coopmap.config import Config, load_config
from coopmap.config.plan import PlanConfig
from coopmap.config.strategy import StrategyConfig
from coopmap.planning.memory import GIB, Counter
from coopmap.planning.samples import Examples, small_town
from coopmap.report.numbers import fixed
from coopmap.report.tables import Column, Table, names

MODELS = {"V1": "mapanything_v1", "V1.1": "mapanything_v11"}
TRAINED = ("full", "lora", "heads", "biases")
AGENTS = (2, 4)
LAYOUTS = {"panorama": "cyl_posefix", "mosaic": "mosaic_posefix", "4n": "four_camera"}
"""Experiments that stand for a layout."""
STRATEGIES = ("ddp", "ddp_zero1", "fsdp")
RANKS = 10


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    model: str
    trained: str
    agents: int
    layout: str

    def config(self, base: Sequence[str]) -> Config:
        """One sample of so many agents per GPU."""
        return load_config(
            [
                *base,
                f"experiment={LAYOUTS[self.layout]}",
                f"model={MODELS[self.model]}",
                f"optim/train={self.trained}",
                f"data.min_agents={self.agents}",
                f"data.max_agents={self.agents}",
                f"data.max_views_per_gpu={self.agents}",
            ]
        )


def cases() -> list[Case]:
    """All rows, in order."""
    return [Case(*each) for each in product(MODELS, TRAINED, AGENTS, LAYOUTS)]


def planned_tables(
    asked: PlanConfig, base: Sequence[str] = ("machine=local3090",), order: Sequence[Case] | None = None
) -> Iterator[Table]:
    """GiB of a GPU with each strategy, ten GPUs, checkpointing everywhere: the table so far, after each row.

    Args:
        asked: what is assumed.
        base: overrides of all rows.
        order: of counting; null = that of the table.
    """
    places = {case: place for place, case in enumerate(cases())}
    rows: dict[int, dict[str, Any]] = {}
    with small_town(max(AGENTS)) as town:
        counter = Counter(Examples(town), asked, RANKS)
        for case in order or cases():
            rows[places[case]] = _row(counter, case, case.config(base))
            yield Table.of_records("Planned memory of a GPU", _columns(), [rows[place] for place in sorted(rows)])


def _row(counter: Counter, case: Case, config: Config) -> dict[str, Any]:
    step = counter.step(config, case.agents, 1)
    return {
        "model": f"{case.model}, {case.trained}",
        "agents": case.agents,
        "layout": case.layout,
        "views": step.views,
        "activations": step.activation_bytes / GIB,
        **{
            name: counter.memory(replace(config, strategy=StrategyConfig(name)), case.agents).total / GIB
            for name in STRATEGIES
        },
    }


def _columns() -> list[Column]:
    one = fixed(1)
    return [
        names("model, trained", "model"),
        Column("agents", key="agents"),
        Column("layout", key="layout", align="left"),
        Column("views", key="views"),
        Column("activations (GiB)", form=one, key="activations"),
        *(Column(f"{name} (GiB)", form=one, key=name) for name in STRATEGIES),
    ]
