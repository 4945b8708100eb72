"""Two processes give the measures and means of one."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from coopmap.metrics import BASELINE_COLUMNS, Measures, measure, pose_rows
from coopmap.metrics.term_means import TermMeans

BATCHES = 3
SHARES = {"uneven": ([0, 2], [1]), "one has nothing": ([0, 1, 2], [])}
"""Batches of either process."""


def figures_of(indices):
    specification = importlib.util.spec_from_file_location("records", Path(__file__).with_name("conftest.py"))
    records = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(records)
    measures, baseline = Measures(), Measures(*BASELINE_COLUMNS)
    for index in indices:
        # the last batch has a single agent, and no mask of vehicles
        prediction, target = records.make_scene(index, batch=2 - index % 2, views=4 - index - (index == 2))
        if index == 2:
            target = records.replace(target, moving=None, own_body=None)
        measures.update(measure(prediction, target))
        baseline.update(pose_rows(target.pose.roll(1, dims=1), target.pose))
    return measures.compute() | {f"baseline_{name}": value for name, value in baseline.compute().items()}


def average(rank):
    means = TermMeans()
    means.update({"a": torch.tensor([1.0, 5.0][rank]), f"only{rank}": torch.tensor([7.0, 9.0][rank])}, [3, 1][rank])
    return {name: value.item() for name, value in means.compute(torch.device("cpu")).items()}


def run(rank, store, queue):
    torch.set_num_threads(1)  # a forked process has none of its parent's
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    queue.put((rank, {name: figures_of(share[rank]) for name, share in SHARES.items()}, average(rank)))
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Of each process: figures of all shares, and means of terms."""
    queue = multiprocessing.get_context("fork").SimpleQueue()
    arguments = tmp_path_factory.mktemp("group") / "store", queue
    multiprocessing.start_processes(run, arguments, nprocs=2, start_method="fork")  # everything is imported already
    return {rank: answer for rank, *answer in (queue.get() for _ in range(2))}


@pytest.mark.parametrize("share", SHARES)
def test_two_processes_give_the_measures_of_one(answers, share):
    together, alone = answers[1][0][share], figures_of(range(BATCHES))
    assert together.keys() == alone.keys()
    assert len(alone) > 80
    assert all(math.isclose(together[name], alone[name], rel_tol=1e-5, abs_tol=1e-9) for name in alone)


def test_ranks_may_know_different_names(answers):
    assert [answers[rank][1] for rank in range(2)] == [{"a": 2.0, "only0": 7.0, "only1": 9.0}] * 2
