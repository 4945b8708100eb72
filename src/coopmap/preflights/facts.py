"""What is known of a run before its first step: processes, lengths, rates, weights."""

from __future__ import annotations

import os
from collections.abc import Iterator

from coopmap.checks.batches import num_ranks
from coopmap.config import Config, ConfigError
from coopmap.data import OPV2VDataModule
from coopmap.preflights.findings import Finding
from coopmap.report.numbers import significant
from coopmap.runs.folder import RunFolder
from coopmap.runs.stored import open_checkpoint
from coopmap.training.module import PoseLearner
from coopmap.training.optim import warmup_cosine

RATE = significant(3)


def check_launcher(config: Config) -> None:
    """Compare the processes that ``torchrun`` has started with those that are configured.

    Raises:
        ConfigError: they differ.
    """
    started, nodes = os.environ.get("WORLD_SIZE"), config.trainer.num_nodes or 1
    if started is None or "LOCAL_WORLD_SIZE" not in os.environ:
        return
    expected, each = num_ranks(config), int(os.environ["LOCAL_WORLD_SIZE"])
    if int(started) != expected:
        raise ConfigError(
            f"the launcher has started {started} processes, {each} on this node, but trainer.devices="
            f"{config.trainer.devices} on trainer.num_nodes={nodes} node(s) are {expected}: set trainer.devices={each} "
            f"trainer.num_nodes={max(1, int(started) // each)}, or start {expected}"
        )


def process_finding(config: Config, world_size: int) -> Finding:
    """Processes that run, against those that are configured."""
    expected, nodes = num_ranks(config), config.trainer.num_nodes or 1
    found = f"{world_size} on {nodes} node(s)"
    if world_size == expected:
        return Finding("processes", found)
    remedy = f"trainer.devices={config.trainer.devices} on {nodes} node(s) are {expected}"
    return Finding("processes", f"{found}, {expected} configured", "WRONG", remedy)


def data_findings(config: Config, datamodule: OPV2VDataModule, world_size: int, val_batches: int) -> Iterator[Finding]:
    """Lengths of the data sets, of epochs and of the run."""
    for split in ("train", "val"):
        dataset = datamodule.dataset(split)
        found = f"{len(dataset):,} of {len(dataset.index):,} usable"
        if split == "val":
            found += f", batches on each rank: {val_batches:,}"
        yield Finding(f"frames, {split}", found)
    found = f"{config.steps_per_epoch:,} an epoch, {config.total_steps:,} in all"
    yield Finding("optimizer steps", f"{found}; {world_size} x {config.accumulate} micro-batches each")


def rate_findings(config: Config, begin: int = 0) -> Iterator[Finding]:
    """The learning rate at the first step of its schedule, its peak and the last.

    Args:
        config: of the run.
        begin: step at which the schedule begins, see :func:`schedule_start`.
    """
    length = max(1, config.total_steps - begin)
    factor, warm_up = warmup_cosine(length, config.optim), round(config.optim.warmup_fraction * length)
    for part, peak in {"": config.optim.lr, **config.optim.lr_of}.items():
        name = f"learning rate, {part}" if part else "learning rate"
        first, last = peak * factor(0), peak * factor(length - 1)
        where = f"first at step {begin:,}" if begin else "first"
        found = f"{RATE(first)} {where}, {RATE(peak)} at step {begin + warm_up:,}, {RATE(last)} last"
        yield Finding(name, found if peak else "0, frozen")


def schedule_start(config: Config, run: RunFolder) -> int:
    """Step at which the learning rate's schedule begins: of a run that goes on, where it was last begun anew."""
    if run.resume_from is None:
        return 0
    checkpoint = open_checkpoint(run.resume_from)
    anew = "schedule" in config.resume_reset
    return int(checkpoint.step or 0) if anew else int(checkpoint.record.get("schedule_start", 0))


def weights_finding(config: Config, run: RunFolder, module: PoseLearner) -> Finding:
    """Where the weights come from, and what of them did not fit. What cannot be read has ended the run before."""
    if run.resume_from is not None:
        step = open_checkpoint(run.resume_from).step or 0
        return Finding("weights", f"{run.resume_from.name} of step {step:,}: 0 missing, 0 unexpected, 0 misshaped")
    record = module.record["weights"]
    if record is None:
        return Finding("weights", "random", "note" if config.model.initialization == "released" else "ok")
    counts = {what: len(record[what]) for what in ("missing", "unexpected", "misshaped")}
    found = ", ".join(f"{number} {what}" for what, number in counts.items())
    size = f"{record['num_parameters'] / 1e6:.1f} M"
    return Finding("weights", f"{size} of {record['source']}: {found}", "note" if any(counts.values()) else "ok")
