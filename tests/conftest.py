import gc
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from coopmap.config.synth import TownConfig, tiny_town

settings.register_profile("coopmap", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("coopmap")
# Small tensors: on a busy machine, waiting for a second thread costs more than it gives.
THREADS = os.environ.get("COOPMAP_TEST_THREADS", "1")
torch.set_num_threads(int(THREADS))
os.environ["OMP_NUM_THREADS"] = THREADS


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws without a generator of its own is the same in any order of tests, and alone."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)


MakeOnce = Callable[[str, Callable[[Path], None]], Path]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For ``-n auto``: a worker per core that has 4 GB of memory, and at most 16.

    A worker grows to 3 GB and starts processes besides. Before its first test each loads PyTorch and collects all
    tests, 10 s of work: beyond 16 workers that takes as long as what is left to do.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(cores, memory // (4 * 1000**3), 16))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector, which would spend a tenth of all time on it, leaves it out."""
    gc.collect()
    gc.freeze()
    # Few objects are left to compare new ones with: it would look through all too often.
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Small files that tests compare with."""
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Fills a folder once for all workers of pytest-xdist: the first that needs it does, the others wait.

    If that fails or the worker dies, the lock is released and the next one starts over. Read only afterwards.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def town(make_once: MakeOnce) -> TownConfig:
    """A rendered tiny town; its configuration says where. Read only."""
    from coopmap.synthetic import render_town

    def config(folder: Path) -> TownConfig:
        return tiny_town(str(folder / "town"), str(folder / "depth"))

    return config(make_once("town", lambda folder: render_town(config(folder))))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright; of a module, since Playwright's event loop stays in the way of others."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=program)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def tiny_model() -> tuple[str, ...]:
    """Overrides that make a model of milliseconds, on small panoramas; runs start at once."""
    return (
        "machine=laptop",
        "preflight.enabled=false",
        "preset=town",
        "data.panorama.height=28",
        "data.panorama.width=112",
        "model.encoder.dim=24",
        "model.encoder.depth=1",
        "model.encoder.num_heads=2",
        "model.info_sharing.dim=24",
        "model.info_sharing.depth=3",
        "model.info_sharing.num_heads=2",
        "model.heads.layer_dims=[8,8,8,8]",
        "model.heads.feature_dim=16",  # eight channels before the last ReLU; all of four may start dead
        "model.heads.pose_dim=8",
        "model.heads.scale_dim=8",
    )
