"""``python -m coopmap.bench NAME [key=value ...]``: measure speed, memory, or what rough poses bring.

``NAME --help`` lists the options.
"""

from __future__ import annotations

import sys
from importlib import import_module

from coopmap.cli.arguments import asks_for_help
from coopmap.cli.hydra_main import user_errors_end_quietly

BENCHMARKS = {
    "model": "time, FLOPs and memory of the model's parts beside what the device can do",
    "loss": "time and memory of the objective",
    "fusion": "training step with every way to fuse a car's cameras, beside 4n camera views",
    "priors": "pose error out over pose error in, by level of noise of the rough poses that runs are given",
}
"""Modules of :mod:`coopmap.benchmarks` with a ``main(arguments)``, and what they measure."""


def main() -> None:
    """Hand the command line to the benchmark it names."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__)
        print("\n".join(f"  {name:8} {purpose}" for name, purpose in BENCHMARKS.items()))
        return
    if name not in BENCHMARKS:
        print(f"error: no benchmark {name!r}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        raise SystemExit(2)
    with user_errors_end_quietly():
        benchmark = import_module(
            "coopmap.evaluation.noise_study" if name == "priors" else f"coopmap.benchmarks.{name}"
        )
        if asks_for_help(arguments):
            print(benchmark.__doc__)
        else:
            benchmark.main(arguments)


if __name__ == "__main__":
    main()
