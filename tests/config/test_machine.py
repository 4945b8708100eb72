"""GPUs are counted before anything is built."""

from typing import Any

import pytest

from coopmap.config import ConfigError
from coopmap.config.machine import check_gpus


@pytest.fixture(autouse=True)
def _four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coopmap.config.machine._present_gpus", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize("devices", ["auto", -1, "-1", 4, "4", [0, 3], "0,3", "2,"])
def test_enough(devices: Any) -> None:
    check_gpus("gpu", "gpu", devices)
    check_gpus("gpu", "cuda", devices)


@pytest.mark.parametrize("devices", [10, "10", [0, 9], "0,9"])
def test_too_few_says_what_to_set(devices: Any) -> None:
    message = r"^machine=local3090: .* needs 10 GPUs, but 4 are visible: set trainer\.devices=4, or machine=gpu"
    with pytest.raises(ConfigError, match=message):
        check_gpus("local3090", "gpu", devices)


def test_hidden_gpus_are_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    with pytest.raises(
        ConfigError, match=r"1 is visible \(CUDA_VISIBLE_DEVICES=2\).*or let CUDA_VISIBLE_DEVICES name more"
    ):
        check_gpus("gpu", "gpu", 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match=r"machine=laptop runs on the CPU \(CUDA_VISIBLE_DEVICES=\)"):
        check_gpus("gpu", "gpu", "auto")


def test_a_cpu_has_no_gpus_to_count() -> None:
    check_gpus("laptop", "cpu", 8)
    check_gpus("laptop", "auto", 8)
