"""The numeric tests hold on other processors: they run under every set of kernels that this machine can stand in for.

Torch (its own kernels, MKL and oneDNN) and numpy (OpenBLAS) choose among kernels for several instruction sets when they
are loaded; other kernels add in another order, and LAPACK's answers to singular problems are others.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NUMERIC_TESTS = (
    "tests/geometry",
    "tests/losses",
    "tests/metrics",
    "tests/models/fusion",
    "tests/models/test_golden.py",
    "tests/models/test_matching.py",
    "tests/models/test_pose_update.py",
    "tests/models/test_rig.py",
    "tests/models/test_spherical.py",
    "tests/evaluation/test_bound.py",
    "tests/evaluation/test_refinement.py",
    "tests/data/test_covisibility_by_rays.py",
)
TORCH = {
    "default": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "avx2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "avx512": {},  # nothing held back
}
NEEDED_FLAGS = {
    "default": set(),
    "avx2": {"avx2", "fma"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"},
    "Haswell": {"avx2", "fma"},
    "Zen": {"avx2", "fma"},
    "SkylakeX": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"},
}
COMBINATIONS = [
    ("default", "Haswell", 1),
    ("avx2", "SkylakeX", 1),
    ("avx512", "Zen", 1),
    ("default", "SkylakeX", 2),
    ("avx2", "Zen", 2),
    ("avx512", "Haswell", 2),
]
"""Torch's kernels, those of OpenBLAS, threads: each kernel with one and with two threads. Torch and numpy never work on
the same product, so that not every two of their kernels need to meet."""

SAME_KERNELS = {"Zen": "Haswell"}
"""Builds of OpenBLAS without kernels of their own for a processor say whose they take."""

RUN = """
import sys
import numpy, pytest, threadpoolctl, torch
blas = [pool["architecture"] for pool in threadpoolctl.threadpool_info() if pool["internal_api"] == "openblas"]
print("kernels:", torch.backends.cpu.get_cpu_capability(), *sorted(set(blas)), flush=True)
sys.exit(pytest.main(sys.argv[1:]))
"""


def cpu_flags() -> set[str]:
    """Instruction sets of an x86 processor; none elsewhere."""
    info = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not info.exists():
        return set()
    lines = [line for line in info.read_text().splitlines() if line.startswith("flags")]
    return set(lines[0].split(":")[1].split()) if lines else set()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("of_torch", "of_blas", "threads"), COMBINATIONS)
def test_numeric_tests_hold(of_torch: str, of_blas: str, threads: int) -> None:
    flags = cpu_flags()
    if not flags:
        pytest.skip("kernels are chosen by name on x86 under Linux only")
    if missing := (NEEDED_FLAGS[of_torch] | NEEDED_FLAGS[of_blas]) - flags:
        pytest.skip(f"this processor lacks {', '.join(sorted(missing))}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {
        "ATEN_CPU_CAPABILITY": of_torch,
        "OPENBLAS_CORETYPE": of_blas,
        "COOPMAP_TEST_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        **TORCH[of_torch],
    }
    options = ("-o", "addopts=--import-mode=importlib", "-m", "not slow", "-q", "-p", "no:cacheprovider")
    result = subprocess.run(
        [sys.executable, "-c", RUN, *options, *NUMERIC_TESTS],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(result.stdout)
    name, *architectures = result.stdout.partition("kernels: ")[2].partition("\n")[0].split()
    assert name == of_torch.upper()
    assert set(architectures) <= {of_blas, SAME_KERNELS.get(of_blas, of_blas)}
    assert architectures
    assert result.returncode == 0, result.stdout[-4000:]
