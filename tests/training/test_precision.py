"""Where bfloat16 is computed in."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from coopmap import load_config
from coopmap.models import precision
from coopmap.training import assembly
from coopmap.training.assembly import trainer_options

CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(platform.machine() != "x86_64" or not CPUINFO.exists(), reason="no list of x86 instructions")
def test_a_cpu_computes_in_bf16_if_it_has_the_instructions() -> None:
    flags = set(next(line for line in CPUINFO.read_text().splitlines() if line.startswith("flags")).split())
    assert precision.computes_bf16("cpu") == bool(flags & {"avx512_bf16", "amx_bf16"})


@pytest.mark.parametrize(("has_it", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_cpu_without_bf16_computes_in_float32(has_it: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[str] = []
    monkeypatch.setattr(assembly, "computes_bf16", lambda kind: kinds.append(kind) or has_it)
    config = load_config(["machine=laptop", "trainer.precision=bf16-mixed"])
    assert trainer_options(config)["precision"] == expected
    assert kinds == ["cpu"]  # whatever GPU there is beside it


def test_other_precisions_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "computes_bf16", lambda kind: False)
    assert trainer_options(load_config(["machine=laptop"]))["precision"] == "32-true"


def test_float32_in_place_of_bf16_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import lightning as L

    config = load_config(["machine=laptop", "trainer.precision=bf16-mixed"])
    for found in ("32-true", "bf16-mixed"):
        trainer = L.Trainer(accelerator="cpu", precision=found, logger=False, enable_checkpointing=False)
        with caplog.at_level("INFO"):
            assembly.say_precision(trainer, config)
    assert [record.message for record in caplog.records if record.name.startswith("coopmap")] == [
        "bf16 is not among this machine's instructions: computing in float32"
    ]
