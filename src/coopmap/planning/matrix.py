"""The table of docs/memory.md: planned memory for released models, what is trained, agents, layouts and strategies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

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


def cases() -> Iterator[Case]:
    """All rows, in order."""
    return (Case(*each) for each in product(MODELS, TRAINED, AGENTS, LAYOUTS))


def planned_table(
    asked: PlanConfig, base: Sequence[str] = ("machine=local3090",), say: Callable[[str], None] = lambda _: None
) -> Table:
    """GiB of a GPU with each strategy, ten GPUs, checkpointing everywhere."""
    rows = []
    with small_town(max(AGENTS)) as town:
        counter = Counter(Examples(town), asked, RANKS)
        for case in cases():
            config = case.config(base)
            step = counter.step(config, case.agents, 1)
            each = {
                name: counter.memory(replace(config, strategy=StrategyConfig(name)), case.agents).total / GIB
                for name in STRATEGIES
            }
            rows.append(
                {
                    "model": f"{case.model}, {case.trained}",
                    "agents": case.agents,
                    "layout": case.layout,
                    "views": step.views,
                    "activations": step.activation_bytes / GIB,
                    **each,
                }
            )
            say(" ".join(map(str, rows[-1].values())))
    return Table.of_records("Planned memory of a GPU", _columns(), rows)


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
