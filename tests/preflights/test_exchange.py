"""What ranks exchange, and what helps when they cannot."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import torch
from torch import distributed

from coopmap import load_config
from coopmap.preflights.exchange import Exchange, ExchangeError, failure, heard, tell_others, timed_all_reduce
from coopmap.preflights.forecast import Pace, forecast


@pytest.fixture
def alone():
    """A group of one rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_all_reduce_is_timed_and_words_are_heard() -> None:
    exchange = timed_all_reduce(torch.device("cpu"), num_nodes=1)
    assert exchange.size == 4 * 2**20
    assert 0 < exchange.seconds < 40
    assert heard() is None
    tell_others("rank 3: out of memory")
    assert heard() == "rank 3: out of memory"


def hangs(tensor: torch.Tensor) -> None:
    threading.Event().wait(20)


def breaks(tensor: torch.Tensor) -> None:
    raise RuntimeError("Connection reset by peer")


def adds_wrongly(tensor: torch.Tensor) -> None:
    tensor[12345] = 7.0


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("reduce", "what"),
    [(hangs, r"not ended after 0\.2 s"), (breaks, "Connection reset by peer"), (adds_wrongly, "the sum .* is wrong")],
)
def test_an_all_reduce_that_does_not_work_names_a_setting(reduce: Callable[[torch.Tensor], None], what: str) -> None:
    with pytest.raises(ExchangeError, match=rf"all-reduce over 1 ranks failed: {what}.*GLOO_SOCKET_IFNAME"):
        timed_all_reduce(torch.device("cpu"), num_nodes=1, limit_s=0.2 if reduce is hangs else 60, reduce=reduce)


@pytest.mark.parametrize(
    ("error", "nodes", "first"),
    [
        ("not ended after 40 s", 1, "NCCL_P2P_DISABLE=1"),
        ("not ended after 40 s", 2, "NCCL_SOCKET_IFNAME"),
        ("transport/net_ib.cc NET/IB : Got completion from peer with error 12", 2, "NCCL_IB_DISABLE=1"),
        ("misc/shmutils.cc:81 NCCL WARN Error: failed to extend /dev/shm/nccl-1 to 9637888 bytes", 1, "NCCL_SHM_DIS"),
        ("bootstrap.cc no socket interface found", 2, "NCCL_SOCKET_IFNAME"),
        ("peer access is not supported between these two devices", 1, "NCCL_P2P_DISABLE=1"),
    ],
)
def test_settings_fit_what_nccl_says(error: str, nodes: int, first: str) -> None:
    assert failure(error, 10, nodes, "cuda").partition("in this order: ")[2].startswith(first)


def test_bandwidth_is_that_of_a_link() -> None:
    """Ten ranks each send and receive 2 x 9/10 of the data: 64 MiB in 12.08 ms are 10 GB/s."""
    assert Exchange(64 * 2**20, 0.012080, 10).bandwidth == pytest.approx(1e10, rel=1e-3)


def test_run_ends_when_its_steps_and_validations_do() -> None:
    """100 steps of 3.6 s are 6 minutes, with a validation of 4 an epoch of 10; 3 epochs and the best once more: 34."""
    now = datetime(2026, 3, 2, 23, 40)
    pace = Pace(batch=1.8, load=8.0, loaders=8, validation=240.0, accumulate=2)
    length = ["machine=laptop", "preset=none", "data.steps_per_epoch=100", "trainer.max_epochs=3"]
    length += ["trainer.accumulate_grad_batches=2", "callbacks.validate_at_start=false"]
    text = forecast(pace, load_config(length), 0, now)
    assert "epoch 23:50 (10 min), of the run Tue 03 Mar 00:14 (34 min), at 3.6 s a step" in text
    assert "waits for data" not in text
    # the second half of the second epoch, and what is left of the run
    text = forecast(pace, load_config(length), 150, now)
    assert "epoch 23:47 (7 min), of the run Tue 03 Mar 00:01 (21 min)" in text
    # none in the first epoch and before it, one in the second, that of the end, and the best
    text = forecast(pace, load_config([*length, "trainer.check_val_every_n_epoch=2"]), 0, now)
    assert "epoch 23:46 (6 min), of the run Tue 03 Mar 00:10 (30 min)" in text
    text = forecast(pace, load_config([*length, "callbacks.validate_at_start=true"]), 0, now)
    assert "epoch 23:54 (14 min), of the run Tue 03 Mar 00:18 (38 min)" in text


def test_a_run_that_waits_for_data_says_so() -> None:
    pace = Pace(batch=0.5, load=8.0, loaders=8, validation=0.0)
    config = load_config(["machine=laptop", "preset=none", "data.steps_per_epoch=3600", "trainer.max_epochs=1"])
    text = forecast(pace, config, 0, datetime(2026, 3, 2))
    assert (
        "epoch 01:00 (1.0 h), of the run 01:00 (1.0 h), at 1 s a step; it waits for data: more data.num_workers" in text
    )
    assert Pace(0.5, 8.0, 0, 0.0).step == 8.5


def test_packages_that_the_table_of_commands_names_need_no_torch() -> None:
    code = "import coopmap.preflight, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
