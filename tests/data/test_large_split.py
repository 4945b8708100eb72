"""Opening a split costs arrays, not an object per frame."""

import gc
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coopmap.benchmarks.opening import FRAMES_PER_SCENARIO, made_up_split, opening_cost
from coopmap.config.data import DataConfig, PanoramaConfig
from coopmap.data.datamodule import OPV2VDataModule

AGENTS = 3


def opened(config: DataConfig) -> tuple[OPV2VDataModule, list]:
    """A split that is ready to train on and to evaluate, with the first requests of each."""
    module = OPV2VDataModule(config)
    module._datasets["val"] = module.dataset("train")
    samplers = [module.train_dataloader().batch_sampler, module.val_dataloader().batch_sampler]
    return module, [next(iter(sampler)) for sampler in samplers]


def blocks_held(config: DataConfig) -> int:
    """Python's memory blocks that an opened split holds, a measure of the number of objects."""
    gc.collect()
    before = sys.getallocatedblocks()
    held = opened(config)
    gc.collect()
    after = sys.getallocatedblocks()
    assert len(held[1]) == 2
    return after - before


def test_no_object_per_frame(tmp_path):
    small, large = (made_up_split(tmp_path / str(n), n * FRAMES_PER_SCENARIO, AGENTS) for n in (2, 22))
    opened(small)  # imports and caches
    assert abs(blocks_held(large) - blocks_held(small)) < 20 * FRAMES_PER_SCENARIO / 2


def test_memory_while_opening_is_bounded(tmp_path):
    frames = 40 * FRAMES_PER_SCENARIO
    tiny = PanoramaConfig(height=14, width=56)  # the rays of a large one would be most of the memory
    config = replace(made_up_split(tmp_path, frames, AGENTS), panorama=tiny)
    opened(config)
    tracemalloc.start()
    opened(config)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1500 * frames  # 150 MB for 100,000


def test_the_made_up_split_is_drawn_from(tmp_path):
    module, (training, evaluation) = opened(made_up_split(tmp_path, 2 * FRAMES_PER_SCENARIO, AGENTS))
    dataset = module.dataset("train")
    assert len(dataset) == 2 * FRAMES_PER_SCENARIO
    assert set(dataset.num_agents.tolist()) == {AGENTS}
    assert {request.num_agents for request in training} <= {2, 3}
    assert [request.frame for request in evaluation] == [0, 1]
    np.testing.assert_allclose(dataset.pairs.distance[:9], [0, 20, 40, 20, 0, 20, 40, 20, 0])


@pytest.mark.slow
def test_a_hundred_thousand_frames(tmp_path: Path):
    """Their memory; `coopmap bench data` says how long they take to open, which is the machine's."""
    assert opening_cost(tmp_path, 100_000, AGENTS)["mb"] < 300
