"""Settings that would save memory, and how much."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from coopmap.config import Config, ConfigError, load_config
from coopmap.planning.memory import GIB, Counter, strategy_name


@dataclass(frozen=True)
class Switch:
    """A change of the command line.

    Attributes:
        setting: to add.
        saves_gib: less memory of a GPU; below 0: more.
        costs: what it costs, in words.
    """

    setting: str
    saves_gib: float
    costs: str


def rank_switches(
    counter: Counter, config: Config, overrides: Sequence[str], agents: int, say: Callable[[str], None]
) -> list[Switch]:
    """All changes that apply, those that save most first.

    Args:
        counter: of steps.
        config: of the run.
        overrides: its command line.
        agents: number at which memory is compared.
        say: receives progress messages.
    """
    before, found = counter.memory(config, agents).total, []
    for setting, costs in _candidates(config, counter.ranks):
        say(f"counting {setting}")
        try:
            other = load_config(_with(overrides, setting.split()))
        except ConfigError:  # does not go with the rest
            continue
        number = min(agents, other.data.max_agents)
        found.append(Switch(setting, (before - counter.memory(other, number).total) / GIB, costs))
    return sorted(found, key=lambda switch: -switch.saves_gib)


def _candidates(config: Config, ranks: int) -> Iterator[tuple[str, str]]:
    present = strategy_name(config, ranks)
    if ranks > 1:
        costs = {
            "ddp": "a third less traffic",
            "ddp_zero1": "half as much traffic again as ddp",
            "fsdp": "half as much traffic again as ddp, in the middle of the computation",
        }
        yield from ((f"strategy={name}", text) for name, text in costs.items() if name != present)
    if config.optim.state_bits == 32 and present in ("single", "ddp"):
        yield "optim.state_bits=8", "averages of 8 bits; needs torchao"
    parts = {"heads": "the dense head", "info_sharing": "the multi-view transformer", "encoder": "the encoder"}
    for part, words in parts.items():
        if not getattr(config.model.checkpointing, part):
            yield f"model.checkpointing.{part}=true", f"computes {words} twice"
    if config.optim.train.name == "full":
        for name, text in (
            ("encoder_frozen", "the encoder does not adapt"),
            ("lora", "low-rank updates of both transformers"),
            ("heads", "only the heads learn"),
            ("biases", "only biases and norms learn"),
        ):
            yield f"optim/train={name}", text
    least = config.data.min_agents
    if config.data.max_views_per_gpu > config.data.max_agents:
        yield f"data.max_views_per_gpu={config.data.max_agents}", "smaller batches"
    if max(config.data.agent_frequencies) > least:
        yield f"data.max_agents={least} data.max_views_per_gpu={least}", f"no samples of more than {least} agents"
    if str(config.trainer.precision) not in ("bf16-mixed", "16-mixed"):
        yield "trainer.precision=bf16-mixed", "products of 8 significant bits"


def _with(overrides: Sequence[str], more: Sequence[str]) -> list[str]:
    """A command line with changes, which take the place of what it said of their keys."""
    keys = {text.partition("=")[0] for text in more}
    return [*(text for text in overrides if text.partition("=")[0] not in keys), *more]
