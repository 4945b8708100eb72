"""Two processes give the measures of one."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch.distributed as dist
from torch import multiprocessing

from coopmap.metrics import BASELINE_COLUMNS, Measures, measure, pose_rows

BATCHES = 3


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


def run(rank, share, store, queue):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    figures = figures_of(share[rank])
    if rank == 1:
        queue.put(figures)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("share", [([0, 2], [1]), ([0, 1, 2], [])], ids=["uneven", "one has nothing"])
def test_two_processes_give_the_measures_of_one(tmp_path, share):
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    multiprocessing.spawn(run, args=(share, tmp_path / "store", queue), nprocs=2)
    together, alone = queue.get(), figures_of(range(BATCHES))
    assert together.keys() == alone.keys()
    assert len(alone) > 80
    assert all(math.isclose(together[name], alone[name], rel_tol=1e-5, abs_tol=1e-9) for name in alone)
