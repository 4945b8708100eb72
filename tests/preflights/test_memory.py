"""Who holds memory on which GPU, against what the run needs."""

import getpass
import logging
import os

import pytest

from coopmap import load_config
from coopmap.config import ConfigError
from coopmap.preflights.devices import load_nvml, read_devices
from coopmap.preflights.findings import findings_table
from coopmap.preflights.memory import device_findings, what_needs_less
from coopmap.preflights.needs import memory_needed
from coopmap.preflights.runner import Preflight
from coopmap.report.terminal import print_table

from .conftest import GIB, FakeDriver

ELSEWHERE = 2**22 + 1
"""A process that this machine does not show: more than the kernel numbers."""


def config_of(*overrides: str):
    return load_config(["machine=local3090", "data.root=/data/opv2v", *overrides])


def thirteen(config) -> int:
    """GiB that any run needs."""
    return 13 * GIB


def test_holders_are_named_with_user_and_size(driver: FakeDriver) -> None:
    driver.held = {3: {os.getpid(): 14.0, ELSEWHERE: 0.5}}
    device = read_devices()[3]
    assert (device.total, device.free) == (24 * GIB, int(9.5 * GIB))
    ours, other = device.holders
    assert (ours.name, ours.user, ours.size) == ("python", getpass.getuser(), 14 * GIB)
    assert str(other) == f"a process (unknown user, pid {ELSEWHERE}) holds 0.5 GiB"


@pytest.mark.parametrize(
    ("visible", "physical"),
    [("4,2", [4, 2]), ("GPU-0007", [7]), ("1,12,3", [1]), ("", []), ("-1", []), (None, list(range(10)))],
)
def test_devices_are_those_that_cuda_would_see(
    visible: str | None, physical: list[int], driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [(device.index, device.physical) for device in read_devices()] == list(enumerate(physical))


@pytest.mark.parametrize(("devices", "physical"), [("3", [0, 1, 2]), ("[1,4]", [1, 4]), ("auto", list(range(10)))])
def test_only_devices_of_the_run_are_looked_at(devices: str, physical: list[int], driver: FakeDriver) -> None:
    findings = device_findings(config_of(f"trainer.devices={devices}"), lambda _: GIB)
    assert [finding.what for finding in findings] == [f"GPU {number}, NVIDIA GeForce RTX 3090" for number in physical]


def test_a_run_that_does_not_fit_beside_a_neighbor_ends_with_what_to_change(driver: FakeDriver) -> None:
    driver.held = {3: {os.getpid(): 14.0}}
    with pytest.raises(ConfigError) as raised:
        Preflight(config_of(), lambda config: int(13.1 * GIB)).check_machine()
    message = str(raised.value)
    assert f"GPU 3 has 10.0 of 24.0 GiB free, 13.1 needed; python ({getpass.getuser()}, pid {os.getpid()})" in message
    assert "preflight.wait_for_memory=2h" in message
    assert "CUDA_VISIBLE_DEVICES=0,1,2,4,5,6,7,8,9 trainer.devices=9" in message
    assert "optim/train=lora" in message
    assert "checkpointing" not in message  # machine=local3090 has it already
    for changed in ("CUDA_VISIBLE_DEVICES", "data.max_agents=3 data.max_views_per_gpu=3"):
        assert changed in message
    config_of("data.max_agents=3", "data.max_views_per_gpu=3", "optim/train=lora", "trainer.devices=9")


def test_a_run_waits_for_its_neighbor_and_says_for_whom(driver: FakeDriver, caplog: pytest.LogCaptureFixture) -> None:
    driver.held = {3: {os.getpid(): 14.0}, 4: {ELSEWHERE: 12.0}}
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            del driver.held[3]
        if sum(slept) > 700:
            driver.held.clear()

    logging.getLogger("coopmap").propagate = True
    with caplog.at_level(logging.INFO, "coopmap.preflights.memory"):
        findings = device_findings(config_of("preflight.wait_for_memory=2h"), thirteen, sleep)
    assert 700 < sum(slept) < 720
    assert [finding.verdict for finding in findings] == ["ok"] * 10
    said = [record.getMessage() for record in caplog.records if record.name == "coopmap.preflights.memory"]
    first, second, reminder = dict.fromkeys(said)  # other tests may have left a handler that records them too
    assert "GPU 3 has 10.0 of 24.0 GiB free, 13.0 needed; python" in first
    assert "GPU 4 has 12.0" in first
    assert "GPU 3" not in second
    assert "GPU 4" in second
    assert reminder.split(";")[:2] == second.split(";")[:2]


def test_waiting_ends_when_its_time_is_over(driver: FakeDriver) -> None:
    driver.held = {0: {ELSEWHERE: 20.0}}
    slept: list[float] = []
    with pytest.raises(ConfigError, match=r"too little memory after 0:01:30: GPU 0 has 4\.0 of 24\.0 GiB"):
        device_findings(config_of("preflight.wait_for_memory=1m30s"), thirteen, slept.append)
    assert sum(slept) == 90


def test_fewer_agents_than_training_is_told_to_draw_are_no_advice() -> None:
    agents = ["data.max_agents=4", "data.max_views_per_gpu=4"]
    fewer = "data.max_agents=3 data.max_views_per_gpu=3"
    assert fewer in what_needs_less(config_of(*agents))
    assert fewer in what_needs_less(config_of(*agents, "data.sampling.agents={2: 0.5, 3: 0.5}"))
    assert fewer not in what_needs_less(config_of(*agents, "data.sampling.agents={2: 0.5, 4: 0.5}"))


@pytest.mark.parametrize("text", ["2", "h", "2 hours", "1h 30m", "-1h"])
def test_times_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"preflight\.wait_for_memory=.*expected a time such as 2h"):
        config_of(f"preflight.wait_for_memory='{text}'")


def test_a_machine_without_nvidia_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    (finding,) = device_findings(config_of("machine=gpu"), thirteen)
    assert "no NVIDIA GPU here to look at" in finding.found
    (finding,) = device_findings(config_of("machine=laptop"), thirteen)
    assert "no GPU is used" in finding.found
    with pytest.raises(RuntimeError):
        load_nvml()


def test_need_is_that_of_the_largest_batch_and_is_found_without_a_word(
    tiny_model: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = [*tiny_model, "machine=gpu", "trainer.devices=2", "data.root=/data/opv2v", "data.max_agents=2"]
    two, four = (memory_needed(load_config([*chosen, f"data.max_views_per_gpu={views}"])) for views in (2, 4))
    # 72 k parameters with gradients and AdamW's two averages take 1.2 MB; CUDA and NCCL, by the plan, 1.4 GiB
    assert 1.4 * GIB + 1.2e6 < two < four < 1.5 * GIB
    assert capfd.readouterr() == ("", "")


def test_table_of_ten_gpus_fits_into_80_columns(driver: FakeDriver, capsys: pytest.CaptureFixture[str]) -> None:
    driver.held = {3: {os.getpid(): 7.25, ELSEWHERE: None}}
    print_table(findings_table(device_findings(config_of(), thirteen)), 80)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("24.0 GiB free, 13.0 needed" in line for line in lines) == 10
    assert any("an unknown amount" in line for line in lines)
