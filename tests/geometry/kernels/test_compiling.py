"""Kernels are kept for other processes, and work where they cannot be."""

import subprocess
import sys

import pytest

from coopmap.geometry.kernels.compiling import kernel

FIND = """
import numpy as np
from coopmap.geometry.boxes import points_in_boxes
from coopmap.geometry.kernels.boxes import points_in_box
(found,) = points_in_boxes(np.array([[0, 0, 1], [5, 0, 0]], np.float32), np.eye(4)[None], np.array([[2.0, 2, 2]]))
assert found.tolist() == [0]
cache = points_in_box.stats
print(bool(cache.cache_path), sum(cache.cache_hits.values()))
"""


def test_a_kernel_works_where_machine_code_cannot_be_kept():
    source: dict = {}
    exec(compile("def twice(x):\n    return x + x\n", "/nowhere/at_all.py", "exec"), source)
    twice = kernel(source["twice"])
    assert twice(21) == 42
    assert twice.stats.cache_path is None


def test_the_next_process_finds_what_the_first_has_compiled():
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", FIND], capture_output=True, text=True, check=True)
    is_kept, hits = done.stdout.split()
    if is_kept == "False":
        pytest.skip("neither the folder of the program nor the user's cache folder can be written here")
    assert int(hits) == 1
