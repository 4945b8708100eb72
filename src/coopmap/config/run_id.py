"""A name for a run that all its processes agree on."""

from __future__ import annotations

import functools
import os
import secrets
from datetime import datetime

from omegaconf import OmegaConf


def register_resolvers() -> None:
    """Register ``${run_id:}`` and ``${sweep_suffix:}`` with OmegaConf (idempotent)."""
    OmegaConf.register_new_resolver("run_id", run_id, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("sweep_suffix", sweep_suffix, replace=True)


def run_id() -> str:
    """Start time and a random suffix; the same on all ranks under torchrun and SLURM.

    A restarted torchrun group and a requeued SLURM job keep the name of their first start.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return _agreed_run_id()
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in os.environ:
        return f"slurm{os.environ['SLURM_JOB_ID']}"
    return _new_run_id()


def sweep_suffix() -> str:
    """``_3`` in the fourth job of a Hydra multirun, else nothing."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return ""
    return f"_{HydraConfig.get().job.num}"


def _new_run_id() -> str:
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(2)}"


@functools.cache
def _agreed_run_id() -> str:
    """Agree through the store that torchrun keeps for its workers; the first process decides."""
    from torch.distributed import TCPStore

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return store.compare_set("coopmap/run_id", "", _new_run_id()).decode()
