"""Two processes give the measures of one."""

import math

import torch
import torch.distributed as dist
from torch import multiprocessing

from coopmap.geometry import pose_from_quat_trans
from coopmap.metrics import DepthError, MaskMeans, RelativePoseError

BATCHES = 3


def batch(index):
    generator = torch.Generator().manual_seed(index)
    poses = [
        pose_from_quat_trans(
            torch.nn.functional.normalize(torch.randn(1, 3, 4, generator=generator), dim=-1),
            torch.randn(1, 3, 3, generator=generator),
        )
        for _ in range(2)
    ]
    depth = 1 + torch.rand(2, 1, 3, 4, 4, generator=generator)
    return poses, depth, depth[0] > 1.3


def measure(indices):
    pose, depth, mask = RelativePoseError(), DepthError(), MaskMeans()
    for index in indices:
        poses, (predicted, true), valid = batch(index)
        pose.update(*poses)
        depth.update(predicted, true, valid)
        mask.update(predicted - 1.5, valid)
    figures = pose.compute() | depth.compute() | mask.compute()
    return {name: value.item() for name, value in figures.items()}


def run(rank, store, queue):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    # The second process sees one batch with pairs less than the first.
    figures = measure(range(rank, BATCHES, 2))
    if rank == 0:
        queue.put(figures)
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_give_the_measures_of_one(tmp_path):
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    multiprocessing.spawn(run, args=(tmp_path / "store", queue), nprocs=2)
    together, alone = queue.get(), measure(range(BATCHES))
    assert together.keys() == alone.keys()
    assert all(math.isclose(together[name], alone[name], rel_tol=1e-5) for name in alone)
