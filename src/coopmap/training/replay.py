"""``coopmap replay``: a skipped step once more, to see where its numbers stop being finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from coopmap.config import ConfigError
from coopmap.config.compose import from_yaml
from coopmap.config.replay import ReplayConfig
from coopmap.losses import Criterion
from coopmap.training.assembly import build_module
from coopmap.training.callbacks.skipped_steps import KIND, file_of
from coopmap.training.module import PoseLearner
from coopmap.training.teacher import build_teacher
from coopmap.types import Batch, Observation, SampleMeta, Target
from coopmap.types.records import TensorRecord


@dataclass(frozen=True)
class Replayed:
    """What a batch gave.

    Attributes:
        loss: total.
        grad_norm: of all weights together.
        module: the first part of the model whose output is not finite, of those that have no parts; ``None`` = none.
        terms: of the objective, that are not finite.
        gradients: weights whose gradient is not finite.
        terms_with_bad_gradients: terms with a finite value and a gradient that is not.
    """

    loss: float
    grad_norm: float
    module: str | None
    terms: list[str]
    gradients: list[str]
    terms_with_bad_gradients: list[str]


def replay_command(asked: ReplayConfig) -> None:
    """Print what was found for each batch of each file."""
    for file in asked.files:
        for number, (found, metas) in enumerate(replay(Path(file))):
            print(f"{file}, batch {number}: " + ", ".join(f"{meta.scenario}/{meta.frame}" for meta in metas))
            print(f"  loss {found.loss:.6g}, norm of the gradient {found.grad_norm:.6g}")
            print(f"  first module that is not finite: {found.module or 'none'}")
            print(f"  terms that are not finite: {', '.join(found.terms) or 'none'}")
            print(f"  finite terms whose gradient is not: {', '.join(found.terms_with_bad_gradients) or 'none'}")
            print(f"  weights whose gradient is not finite: {_few(found.gradients)}")


def _few(names: list[str]) -> str:
    return "none" if not names else ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def replay(file: Path) -> Iterator[tuple[Replayed, tuple[SampleMeta, ...]]]:
    """Compute the batches of a skipped step again, with its weights and random numbers.

    Raises:
        ConfigError: it is no file of a skipped step, or that of rank 0, which has the weights, does not lie beside it.
    """
    content = _read(file)
    weights = _weights(file, content)
    module = build_module(from_yaml(content["config"], ["model.weights=null", "resume=null"]))
    config = from_yaml(content["config"], [])
    module.model.load_state_dict(weights)  # type: ignore[union-attr]
    module.teacher = build_teacher(config)
    module.train()
    precision = str(content.get("precision") or config.trainer.precision or "32-true")
    for stored in content["batches"]:
        metas = tuple(SampleMeta(**{**meta, "agents": tuple(meta["agents"])}) for meta in stored["metas"])
        batch = Batch(Observation(**stored["observation"]), Target(**stored["target"]), metas)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision.startswith("bf16")):
            yield _run(module, batch, stored["micro_batch"]), metas


def _read(file: Path) -> dict[str, Any]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError(f"{file}: cannot be read ({(str(error).splitlines() or ['?'])[0]})") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ConfigError(f"{file}: holds no skipped step; expected a file from a run's folder skipped/")
    return content


def _weights(file: Path, content: dict[str, Any]) -> dict[str, Tensor]:
    if content["weights"] is not None:
        return content["weights"]
    beside = file_of(file.parent, content["step"], rank=0)
    if not beside.is_file():
        raise ConfigError(f"{file}: the weights of this step are in rank 0's file, expected beside it: {beside.name}")
    return _read(beside)["weights"]


def _run(module: PoseLearner, batch: Batch, micro_batch: int) -> Replayed:
    module.tie_random_numbers(micro_batch)
    module.zero_grad(set_to_none=True)
    with _first_not_finite(module.model) as first:  # type: ignore[arg-type]
        total, terms = module.loss_of(batch, micro_batch)
    total.backward()
    named = dict(module.model.named_parameters())  # type: ignore[union-attr]
    gradients = {name: weight.grad for name, weight in named.items() if weight.grad is not None}
    bad_terms = [name for name, value in terms.items() if not value.isfinite()]
    bad = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    finite_terms = [] if not bad or bad_terms else _terms_with_bad_gradients(module, batch, micro_batch)
    norm = nn.utils.get_total_norm(list(gradients.values()))
    return Replayed(float(total.detach()), float(norm), first[0] if first else None, bad_terms, bad, finite_terms)


def _terms_with_bad_gradients(module: PoseLearner, batch: Batch, micro_batch: int) -> list[str]:
    """Terms, each by itself, whose gradient with respect to the prediction is not finite."""
    from coopmap.losses.terms import TERMS

    module.tie_random_numbers(micro_batch)
    observation, teaching = module.given(batch, micro_batch)
    with torch.no_grad():
        prediction = module(observation)
    assert isinstance(module.criterion, Criterion)
    weights, found = module.criterion.cfg.weights, []
    before = {term.key: getattr(weights, term.key) for term in TERMS}
    try:
        for term in TERMS:
            if not before[term.key]:
                continue
            for other in TERMS:
                setattr(weights, other.key, before[term.key] if other is term else 0.0)
            leaves = prediction.map(lambda tensor: tensor.detach().requires_grad_(tensor.is_floating_point()))
            module.criterion(leaves, batch.target, **teaching)[0].backward()
            if any(not leaf.grad.isfinite().all() for leaf in _leaves(leaves) if leaf.grad is not None):
                found.append(term.key)
    finally:
        for key, value in before.items():
            setattr(weights, key, value)
    return found


def _leaves(record: TensorRecord) -> list[Tensor]:
    leaves: list[Tensor] = []
    record.map(lambda tensor: leaves.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return leaves


@contextmanager
def _first_not_finite(model: nn.Module) -> Iterator[list[str]]:
    """Names of modules without parts, in the order in which their output was not finite."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if any(isinstance(leaf, Tensor) and not leaf.isfinite().all() for leaf in tree_leaves(output)):
                found.append(name)

        return hook

    handles = [
        each.register_forward_hook(look(name)) for name, each in model.named_modules() if not list(each.children())
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
