"""Memory of one GPU in training, item by item."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from coopmap.config import Config
from coopmap.config.plan import PlanConfig
from coopmap.planning.samples import Examples
from coopmap.planning.state import StateBytes, hollow_model, state_bytes
from coopmap.planning.steps import StepCount, count_step

GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a step.

    Attributes:
        parameters, gradients, optimizer: exact, as the strategy shares them out.
        teacher: a frozen copy of the model, where the objective asks for one.
        activations: counted, the batch included.
        buckets: what is on its way between ranks, estimated.
        workspace: assumed: CUDA, libraries, what the allocator cannot use.
    """

    parameters: int
    gradients: int
    optimizer: int
    teacher: int
    activations: int
    buckets: int
    workspace: int

    @property
    def total(self) -> int:
        """All together."""
        return sum(asdict(self).values())

    def gib(self) -> dict[str, float]:
        """GiB of each item, and of all."""
        return {name: value / GIB for name, value in [*asdict(self).items(), ("total", self.total)]}


class Counter:
    """Counts configurations, each once.

    Args:
        examples: samples to count with.
        asked: what is assumed.
        ranks: number of GPUs.
    """

    def __init__(self, examples: Examples, asked: PlanConfig, ranks: int) -> None:
        self.examples, self.asked, self.ranks = examples, asked, ranks
        self._steps: dict[tuple[str, int, int], StepCount] = {}
        self._states: dict[tuple[str, str], StateBytes] = {}

    def step(self, config: Config, agents: int, batch: int) -> StepCount:
        """A training step of one GPU on so many samples of so many agents."""
        optim = replace(config.optim, state_bits=32)  # of the state alone
        key = (_what_counts(replace(config, optim=optim)), agents, batch)
        if key not in self._steps:
            self._steps[key] = count_step(config, self.examples.of(config, agents), batch)
        return self._steps[key]

    def state(self, config: Config) -> StateBytes:
        """What the GPU that has most keeps between steps."""
        strategy = strategy_name(config, self.ranks)
        key = (_what_counts(config), strategy)
        if key not in self._states:
            model = hollow_model(config)
            each = [
                state_bytes(model, config.optim, strategy, self.ranks, rank)
                for rank in range(self.ranks if strategy == "ddp_zero1" else 1)
            ]
            self._states[key] = max(each, key=lambda state: state.kept)
        return self._states[key]

    def memory(self, config: Config, agents: int, views: int | None = None) -> Memory:
        """Memory of a GPU.

        Args:
            config: of the run.
            agents: in every sample.
            views: ``data.max_views_per_gpu``; null = that of the configuration.
        """
        views = config.data.max_views_per_gpu if views is None else views
        step = self.step(config, agents, max(1, views // agents))
        return self.memory_with(config, step.activation_bytes, step.joint_bytes)

    def memory_with(self, config: Config, activations: int, joint: int) -> Memory:
        """Memory of a GPU with so many bytes of activations."""
        state, is_alone = self.state(config), self.ranks == 1
        activations = max(0, joint - state.gradients) if is_alone else activations
        nccl = 0.0 if is_alone else self.asked.nccl_gib
        fixed = (self.asked.workspace_gib + nccl) * GIB
        return Memory(
            parameters=state.parameters,
            gradients=state.gradients,
            optimizer=state.optimizer,
            teacher=state.whole if config.loss.weights.scale_distillation else 0,
            activations=activations,
            buckets=state.passing + _compressed(config, state, is_alone),
            workspace=round(fixed + self.asked.fragmentation * activations),
        )


def _compressed(config: Config, state: StateBytes, is_alone: bool) -> int:
    """Copies of gradients in half precision; all of them, if the network is the slower part."""
    return state.gradients // 2 if config.strategy.compress_gradients and not is_alone else 0


def strategy_name(config: Config, ranks: int) -> str:
    """The strategy that runs: with one GPU they are all the same."""
    if ranks == 1:
        return "single"
    return "ddp" if config.strategy.name == "auto" else config.strategy.name


def _what_counts(config: Config) -> str:
    """Of a configuration what a step and its memory depend on."""
    parts = asdict(config)  # parts left out of a checked configuration might not go with those that are left
    for name in ("seed", "experiment", "run_dir", "resume", "machine", "strategy"):
        del parts[name]
    for name in ("min_agents", "max_agents", "max_views_per_gpu", "steps_per_epoch"):
        del parts["data"][name]
    return repr(parts)
