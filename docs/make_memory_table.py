"""Writes the planned table of memory.md: python docs/make_memory_table.py. Needs no GPU, and ten minutes of a core."""

from pathlib import Path

from coopmap.config.plan import PlanConfig
from coopmap.planning.matrix import planned_table
from coopmap.report.files import write_text

BEGIN, END = "<!-- planned: written by docs/make_memory_table.py -->\n", "<!-- end of planned -->"


def main() -> None:
    """Replace what is between the marks."""
    page = Path(__file__).with_name("memory.md")
    head, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, tail = rest.partition(END)
    table = planned_table(PlanConfig(), say=lambda line: print(line, flush=True)).markdown(level=3)
    write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", page)


if __name__ == "__main__":
    main()
