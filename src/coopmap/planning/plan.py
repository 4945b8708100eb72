"""The plan of a run: memory of a GPU, whether it fits, how long it takes, what would save how much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from coopmap.config import Config, load_config
from coopmap.config.model import CheckpointingConfig
from coopmap.config.plan import PlanConfig
from coopmap.planning.duration import Duration, Epoch, duration_of, epoch_of
from coopmap.planning.gpus import Gpus
from coopmap.planning.memory import GIB, Counter, Memory, strategy_name
from coopmap.planning.samples import examples
from coopmap.planning.switches import Switch, rank_switches
from coopmap.planning.views import most_views


@dataclass(frozen=True)
class AgentsRow:
    """A step with so many agents in every sample; memory with gradient checkpointing as configured, on and off."""

    agents: int
    batch: int
    views: int
    tokens: int
    tflop: float
    gib: float
    checkpointed_gib: float
    plain_gib: float


@dataclass(frozen=True)
class Plan:
    """What ``coopmap plan`` finds.

    Attributes:
        model, strategy, trained, layout, precision: of the run.
        ranks: number of GPUs.
        limit_gib: memory that a GPU has for this run.
        memory: at the number of agents that takes most.
        fits: whether it does.
        most_views: largest ``data.max_views_per_gpu`` that fits; 0 if nothing does.
        agents: a step for each number of agents that training draws.
        layouts: GiB of a GPU with other layouts, at the largest number of agents.
        epoch, duration: sizes and times.
        train_batches, val_batches: samples in a batch, for each number of agents.
        switches: other settings and what they would save, the largest first.
        assumed: what was assumed.
    """

    model: str
    strategy: str
    trained: str
    layout: str
    precision: str
    ranks: int
    limit_gib: float
    memory: Memory
    fits: bool
    most_views: int
    agents: list[AgentsRow]
    layouts: dict[str, float]
    epoch: Epoch
    duration: Duration
    train_batches: dict[int, int]
    val_batches: dict[int, int]
    switches: list[Switch]
    assumed: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Content of ``plan.json``."""
        return {**asdict(self), "memory": asdict(self.memory), "gib": self.memory.gib()}


def make_plan(
    asked: PlanConfig, overrides: Sequence[str], gpus: Gpus, say: Callable[[str], None] = lambda _: None
) -> Plan:
    """Plan a run from its command line.

    Args:
        asked: what to assume.
        overrides: of the run.
        gpus: how many there are, and their memory.
        say: receives progress messages.
    """
    config = load_config(overrides)
    numbers = list(config.data.agent_frequencies)
    with examples(config, numbers) as found:
        counter = Counter(found, asked, gpus.count)
        say(f"counting steps of {config.model.name} with {', '.join(map(str, numbers))} agents")
        rows = [agents_row(counter, config, number) for number in numbers]
        worst = max(rows, key=lambda row: row.gib).agents
        memory, limit = counter.memory(config, worst), gpus.gib - asked.held_gib
        say("looking for the most views that fit")
        most = most_views(counter, config, numbers, limit * GIB)
        layouts = _layouts(counter, config, say) if asked.layouts else {}
        switches = rank_switches(counter, config, overrides, worst, say) if asked.switches else []
        steps = {number: counter.step(config, number, _batch(config, number)) for number in numbers}
        epoch = epoch_of(config, asked, gpus.count)
        duration = duration_of(config, asked, gpus.count, steps, counter.state(config).trained, epoch)
    validated = range(config.data.min_agents, config.data.max_agents + 1)
    return Plan(
        model=config.model.name,
        strategy=strategy_name(config, gpus.count),
        trained=config.optim.train.name,
        layout=config.data.layout,
        precision=str(config.trainer.precision or "32-true"),
        ranks=gpus.count,
        limit_gib=limit,
        memory=memory,
        fits=memory.total <= limit * GIB,
        most_views=most,
        agents=rows,
        layouts=layouts,
        epoch=epoch,
        duration=duration,
        train_batches={number: _batch(config, number) for number in numbers},
        val_batches={number: _batch(config, number) for number in validated},
        switches=switches,
        assumed=[*gpus.assumed, *_assumed(asked, config, epoch)],
    )


def agents_row(counter: Counter, config: Config, agents: int) -> AgentsRow:
    """A step with so many agents in every sample."""
    step = counter.step(config, agents, _batch(config, agents))
    gib = [counter.memory(each, agents).total / GIB for each in (config, checkpointed(config, True))]
    return AgentsRow(
        agents=agents,
        batch=_batch(config, agents),
        views=step.views,
        tokens=step.tokens,
        tflop=step.flops / 1e12,
        gib=gib[0],
        checkpointed_gib=gib[1],
        plain_gib=counter.memory(checkpointed(config, False), agents).total / GIB,
    )


def checkpointed(config: Config, is_on: bool) -> Config:
    """The configuration with gradient checkpointing of all parts, or none."""
    return replace(config, model=replace(config.model, checkpointing=CheckpointingConfig(*[is_on] * 3)))


def _batch(config: Config, agents: int) -> int:
    return max(1, config.data.max_views_per_gpu // agents)


def _layouts(counter: Counter, config: Config, say: Callable[[str], None]) -> dict[str, float]:
    """GiB with each layout, for a model that takes single images; others have the layout of their fusion."""
    if config.model.fusion.kind != "none":
        return {}
    say("counting other layouts")
    found = {}
    for name, layout in (("panorama", "panorama"), ("mosaic", "mosaic"), ("4n", "cameras")):
        plain = replace(config.model, plucker=config.model.plucker and layout == "mosaic")
        try:
            each = replace(config, data=_with_layout(config, layout), model=plain)
        except ValueError:  # add-ons that belong to one layout
            continue
        found[name] = counter.memory(each, max(config.data.agent_frequencies)).total / GIB
    return found


def _with_layout(config: Config, layout: str) -> Any:
    augmentation = replace(config.data.augmentation, yaw_roll=False, tilt_deg=0.0)
    return replace(config.data, layout=layout, neighbor_ticks=0, augmentation=augmentation)


def _assumed(asked: PlanConfig, config: Config, epoch: Epoch) -> list[str]:
    """What the plan does not know."""
    lines = [
        f"{asked.workspace_gib:g} GiB for CUDA and kernels' workspaces, {asked.nccl_gib:g} for NCCL, "
        f"{100 * asked.fragmentation:g} % of the activations lost to fragmentation"
    ]
    if asked.step_s is None:
        lines.append(
            f"step time from assumed rates (tflops=, bus_gb_s={asked.bus_gb_s:g}), none was measured (step_s=)"
        )
    if epoch.is_assumed and epoch.val_batches:
        lines.append(f"{epoch.val_frames} validation frames of {config.data.max_agents} agents: no data at data.root")
    return lines
