"""Writes the planned table of memory.md: python docs/make_memory_table.py. Needs no GPU, and five minutes of a core.

All that is between the marks is replaced, after every row, those that most depend on first.
"""

from pathlib import Path

from coopmap.config.plan import PlanConfig
from coopmap.planning.matrix import LAYOUTS, TRAINED, cases, planned_tables
from coopmap.report.files import write_text

BEGIN, END = "<!-- planned: written by docs/make_memory_table.py -->\n", "<!-- end of planned -->"


def main() -> None:
    """Replace what is between the marks."""
    page = Path(__file__).with_name("memory.md")
    head, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, tail = rest.partition(END)
    order = sorted(cases(), key=lambda case: (tuple(LAYOUTS).index(case.layout), TRAINED.index(case.trained)))
    for number, table in enumerate(planned_tables(PlanConfig(), order=order), start=1):
        print(f"{number} of {len(order)} rows", flush=True)
        write_text(f"{head}{BEGIN}\n{table.markdown(level=3)}\n{END}{tail}", page)


if __name__ == "__main__":
    main()
