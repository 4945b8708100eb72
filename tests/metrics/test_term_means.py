import math

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


def test_what_a_batch_holds_nothing_for_does_not_count() -> None:
    means, yes, no = TermMeans(), torch.tensor(True), torch.tensor(False)
    means.update({"a": torch.tensor(4.0), "b": torch.tensor(0.0)}, 1, {"a": yes, "b": no})
    means.update({"a": torch.tensor(0.0), "b": torch.tensor(math.nan)}, 3, {"a": no, "b": no})
    means.update({"a": torch.tensor(1.0)}, 2)
    found = {name: value.item() for name, value in means.compute(CPU).items()}
    assert found["a"] == 2.0
    assert math.isnan(found["b"])
