"""Whether two runs are one and the same."""

from pathlib import Path

import torch

from coopmap.runs.checkpoint_io import read_checkpoint
from coopmap.runs.metrics_file import read_metrics


def assert_same_run(continued: Path, straight: Path) -> None:
    """Weights, optimizer, schedule, validations and log of a continued run equal those of the uninterrupted one.

    Args:
        continued, straight: folders of the runs.
    """
    ours, theirs = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (continued, straight))
    assert ours["global_step"] == theirs["global_step"]
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    for name, weight in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], weight), name
    for key, state in theirs["optimizer_states"][0]["state"].items():
        assert torch.equal(ours["optimizer_states"][0]["state"][key]["exp_avg"], state["exp_avg"])
    histories = [checkpoint["callbacks"]["ValidationHistory"]["entries"] for checkpoint in (ours, theirs)]
    assert histories[0] == histories[1]
    logs = [
        [
            {name: value for name, value in row.items() if not name.startswith(("time/", "memory/"))}
            for row in read_metrics(folder / "metrics.csv")
        ]
        for folder in (continued, straight)
    ]
    assert logs[0] == logs[1]
