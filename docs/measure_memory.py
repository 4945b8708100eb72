"""Fills the measured table of memory.md, on a GPU: python docs/measure_memory.py [key=value ...].

Each model trains a few steps of one synthetic sample with each setting by itself, and its time and the allocator's peak
stand beside the plan. One GPU, or several with a strategy: torchrun --nproc-per-node 10 docs/measure_memory.py
trainer.devices=10 strategy=ddp_zero1. A try without a GPU: `models=tiny`.
"""

import sys
from pathlib import Path

from coopmap.planning.matrix import MODELS
from coopmap.planning.measured import SWITCHES, measured_table
from coopmap.report.files import write_text
from coopmap.report.terminal import print_table
from coopmap.runs.logs import is_other_rank

BEGIN, END = "<!-- measured: written by docs/measure_memory.py -->\n", "<!-- end of measured -->"
TWO_PANORAMAS = ("data.min_agents=2", "data.max_agents=2", "data.max_views_per_gpu=2")
TINY = (
    "machine=laptop",
    "preset=town",
    "data.panorama.height=28",
    "data.panorama.width=112",
    "model.encoder.depth=1",
    "model.info_sharing.depth=3",
)


def main(arguments: list[str]) -> None:
    """Measure, print, and replace what is between the marks, unless the models are tiny."""
    is_tiny = "models=tiny" in arguments
    asked = [text for text in arguments if text != "models=tiny"]
    machine = () if any(text.startswith("trainer.devices=") for text in asked) else ("trainer.devices=1",)
    base = {
        name: ["machine=local3090", f"model={model}", *machine, *TWO_PANORAMAS, *asked]
        for name, model in MODELS.items()
    }
    switches = SWITCHES
    if is_tiny:
        base = {"tiny": [*TINY, *TWO_PANORAMAS, *asked]}
        switches = {name: more for name, more in SWITCHES.items() if name != "compiled blocks"}
    table = measured_table(base, switches, steps=2 if is_tiny else 10)
    if is_other_rank():
        return
    print_table(table)
    if not is_tiny:
        page = Path(__file__).with_name("memory.md")
        head, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        write_text(f"{head}{BEGIN}\n{table.markdown(level=3)}\n{END}{rest.partition(END)[2]}", page)


if __name__ == "__main__":
    main(sys.argv[1:])
