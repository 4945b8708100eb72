import json
import subprocess
import sys
from pathlib import Path

import torch

from coopmap.metrics.term_means import TermMeans

CPU = torch.device("cpu")


def test_mean_is_weighted_by_samples_and_names_may_come_and_go() -> None:
    means = TermMeans()
    means.update({"a": torch.tensor(1.0), "b": torch.tensor(10.0)}, 3)
    means.update({"a": torch.tensor(5.0)}, 1)
    assert {name: value.item() for name, value in means.compute(CPU).items()} == {"a": 2.0, "b": 10.0}
    means.reset()
    assert means.compute(CPU) == {}


RANK = """
import json, sys, torch
from coopmap.metrics.term_means import TermMeans
rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
means = TermMeans()
means.update({"a": torch.tensor([1.0, 5.0][rank]), f"only{rank}": torch.tensor([7.0, 9.0][rank])}, [3, 1][rank])
print(json.dumps({name: value.item() for name, value in means.compute(torch.device("cpu")).items()}))
torch.distributed.destroy_process_group()
"""


def test_ranks_may_know_different_names(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", RANK]
    ranks = [
        subprocess.Popen([*arguments, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in ranks]
    assert answers == [{"a": 2.0, "only0": 7.0, "only1": 9.0}] * 2
