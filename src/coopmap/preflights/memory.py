"""Free memory against what a run needs, and waiting for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from coopmap.config import Config, ConfigError
from coopmap.config.preflight import seconds_of
from coopmap.preflights.devices import Device, NoDriverError, read_devices
from coopmap.preflights.findings import Finding, gib

log = logging.getLogger(__name__)

POLL_S = 5.0
REMIND_S = 600.0


def device_findings(
    config: Config, plan: Callable[[Config], int], sleep: Callable[[float], None] = time.sleep
) -> list[Finding]:
    """A line per GPU that the run will use; waits for those that others hold, if it may.

    Args:
        config: of the run.
        plan: bytes that it needs on each GPU; asked if there are any.
        sleep: for so many seconds.

    Raises:
        ConfigError: there is too little, and there still was when ``preflight.wait_for_memory`` had passed.
    """
    if str(config.trainer.accelerator) == "cpu":
        return [Finding("devices", "no GPU is used (trainer.accelerator=cpu)")]
    devices: Sequence[Device]
    try:
        devices = used_devices(config, read_devices())
    except NoDriverError as error:
        return [Finding("devices", f"no NVIDIA GPU here to look at ({error})", "note")]
    needed = plan(config)
    devices = _awaited(config, devices, needed, sleep)
    return [_finding(device, needed) for device in devices]


def used_devices(config: Config, devices: Sequence[Device]) -> list[Device]:
    """Those that ``trainer.devices`` names."""
    wanted: Any = config.trainer.devices
    if isinstance(wanted, list):
        return [device for device in devices if device.index in wanted]
    return list(devices if wanted in ("auto", -1) else devices[:wanted])


def _finding(device: Device, needed: int) -> Finding:
    words = [f"{device.memory}, {gib(needed)} needed", *map(str, device.holders)]
    return Finding(f"GPU {device.physical}, {device.name}", "; ".join(words), "note" if device.holders else "ok")


def _awaited(
    config: Config, devices: Sequence[Device], needed: int, sleep: Callable[[float], None]
) -> Sequence[Device]:
    """The devices, once each has enough memory."""
    text = config.preflight.wait_for_memory
    patience = 0.0 if text is None else seconds_of("preflight.wait_for_memory", text)
    waited, said, said_at = 0.0, "", 0.0
    while short := [device for device in devices if device.free < needed]:
        if waited >= patience:
            raise ConfigError(too_little(config, devices, short, needed, waited))
        message = f"waiting for memory: {_shortage(short, needed)}"
        if message != said or waited - said_at >= REMIND_S:
            until = datetime.now() + timedelta(seconds=patience - waited)
            log.info("%s; until %s at most", message, until.strftime("%a %H:%M"))
            said, said_at = message, waited
        sleep(POLL_S)
        waited += POLL_S
        devices = used_devices(config, read_devices())
    return devices


def _shortage(short: Sequence[Device], needed: int) -> str:
    lines = [
        f"GPU {device.physical} has {device.memory}, {gib(needed)} needed" + (f"; {device.held}" if device.held else "")
        for device in short
    ]
    return ". ".join(lines)


def too_little(
    config: Config, devices: Sequence[Device], short: Sequence[Device], needed: int, waited: float = 0.0
) -> str:
    """What is missing where, and everything that would help."""
    could = []
    if not waited:
        could.append("preflight.wait_for_memory=2h waits for them")
    if fitting := [device.physical for device in devices if device not in short]:
        listed = ",".join(map(str, fitting))
        could.append(f"CUDA_VISIBLE_DEVICES={listed} trainer.devices={len(fitting)} leaves them out")
    if less := ", ".join(what_needs_less(config)):
        could.append(f"{less} need less")
    after = f" after {timedelta(seconds=round(waited))}" if waited else ""
    return f"too little memory{after}: {_shortage(short, needed)}. {'; '.join(could)}; coopmap plan tells how much"


def what_needs_less(config: Config) -> Iterator[str]:
    """Overrides that save memory, of those that are not in force; the ones that change least about training first."""
    off = [part for part in ("encoder", "info_sharing", "heads") if not getattr(config.model.checkpointing, part)]
    yield from (f"model.checkpointing.{part}=true" for part in off)
    if config.trainer.precision == "32-true":
        yield "trainer.precision=bf16-mixed"
    if config.data.max_views_per_gpu > config.data.max_agents:
        yield f"data.max_views_per_gpu={config.data.max_agents}"
    elif config.data.max_agents > config.data.min_agents and config.data.max_agents not in config.data.sampling.agents:
        yield f"data.max_agents={config.data.max_agents - 1} data.max_views_per_gpu={config.data.max_agents - 1}"
    if config.optim.train.name == "full":
        yield "optim/train=lora"
