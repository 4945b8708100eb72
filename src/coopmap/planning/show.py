"""The plan as tables for people."""

from __future__ import annotations

from typing import Any

from coopmap.planning.duration import Epoch
from coopmap.planning.plan import Plan
from coopmap.report.numbers import significant
from coopmap.report.tables import Column, Table, names
from coopmap.report.terminal import print_table

THREE = significant(3)
PER_GPU = {
    "parameters": "exact",
    "gradients": "exact",
    "optimizer": "exact: AdamW's two averages",
    "teacher": "a frozen copy of the model",
    "activations": "counted, the batch included",
    "buckets": "on the way between GPUs, estimated",
    "workspace": "CUDA, libraries, fragmentation, assumed",
}


def tables(plan: Plan) -> list[Table]:
    """Memory, agents, switches."""
    gib = plan.memory.gib()
    items: list[dict[str, Any]] = [
        {"item": name, "gib": gib[name], "how": text} for name, text in PER_GPU.items() if gib[name]
    ]
    found = [
        Table.of_records(
            "Memory of a GPU",
            [names("item", "item"), Column("GiB", form=THREE, key="gib"), Column("", key="how", align="left")],
            [*items, {"item": "total", "gib": gib["total"], "how": f"of {plan.limit_gib:.3g}"}],
        ),
        Table.of_records(
            "A step of a GPU",
            [
                names("agents", "agents"),
                Column("samples", key="batch"),
                Column("views", key="views"),
                Column("tokens", key="tokens"),
                Column("TFLOP", form=THREE, key="tflop"),
                Column("GiB", form=THREE, key="gib"),
                Column("GiB, checkpointing", form=THREE, key="checkpointed_gib"),
                Column("GiB, none", form=THREE, key="plain_gib"),
            ],
            [vars(row) | {"agents": str(row.agents)} for row in plan.agents],
        ),
    ]
    if plan.layouts:
        rows: list[dict[str, Any]] = [{"layout": name, "gib": value} for name, value in plan.layouts.items()]
        columns = [names("layout", "layout"), Column("GiB", form=THREE, key="gib")]
        found.append(Table.of_records("Layouts, at the most agents", columns, rows))
    if plan.switches:
        columns = [
            names("setting", "setting"),
            Column("saves (GiB)", form=THREE, key="saves_gib"),
            Column("costs", key="costs", align="left"),
        ]
        found.append(Table.of_records("Other settings", columns, [vars(switch) for switch in plan.switches]))
    return found


def lines(plan: Plan) -> list[str]:
    """What the tables do not say."""
    total, epoch, time = plan.memory.gib()["total"], plan.epoch, plan.duration
    verdict = "fits" if plan.fits else f"DOES NOT FIT: {total - plan.limit_gib:.2g} GiB too much"
    most = plan.most_views or "none: no batch of the most agents fits"
    source = "measured" if time.is_measured else "assumed rates"
    return [
        f"{plan.model}, strategy={plan.strategy}, optim/train={plan.trained}, {plan.layout}, {plan.precision}, "
        f"{plan.ranks} GPU(s)",
        f"{total:.3g} GiB of {plan.limit_gib:.3g}: {verdict}",
        f"largest data.max_views_per_gpu that fits: {most}",
        f"batches by agents: training {_sizes(plan.train_batches)}, validation {_sizes(plan.val_batches)}",
        f"epoch: {epoch.steps} steps, {epoch.samples:.4g} samples; validation: {_validation(epoch)}",
        f"step {time.step_s:.3g} s ({source}; {time.exchange_s:.2g} s waiting for other GPUs), "
        f"{time.validations} validations of {time.validation_s:.3g} s, "
        f"epoch {time.epoch_h:.3g} h, run {time.run_h:.3g} h for {time.epochs:g} epochs",
        *(f"assumed: {line}" for line in plan.assumed),
    ]


def _validation(epoch: Epoch) -> str:
    """What it takes."""
    return f"{epoch.val_frames} frames, {epoch.val_batches} batches per GPU" if epoch.val_batches else "none"


def _sizes(batches: dict[int, int]) -> str:
    return ", ".join(f"{agents}: {size}" for agents, size in batches.items())


def show(plan: Plan) -> None:
    """On the terminal."""
    for table in tables(plan):
        print_table(table)
    print("\n".join(lines(plan)))
