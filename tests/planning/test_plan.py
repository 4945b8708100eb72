"""Plans beside what really happens in memory, and what they say."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import nn

from coopmap import load_config
from coopmap.cli.main import main
from coopmap.config import Config
from coopmap.config.plan import PlanConfig
from coopmap.config.synth import TownConfig
from coopmap.losses import build_loss
from coopmap.losses.blocks import blocks_as_on
from coopmap.models import build_model
from coopmap.planning.gpus import Gpus
from coopmap.planning.memory import GIB, Counter
from coopmap.planning.plan import checkpointed, make_plan
from coopmap.planning.samples import Example, Examples, small_town
from coopmap.planning.steps import count_step
from coopmap.planning.views import most_views
from coopmap.preflights.needs import memory_needed
from coopmap.training.adaptation import adapt

TinyModel = tuple[str, ...]
FULL_WIDTH = (
    "machine=laptop",
    "preset=none",
    "model.encoder.depth=2",
    "model.info_sharing.depth=4",
    "model.info_sharing.intermediate_layers=[1,2]",
    "data.panorama.height=70",
    "data.panorama.width=280",
)


@pytest.fixture(scope="module")
def examples() -> Iterator[Examples]:
    with small_town(3) as town:
        yield Examples(town)


def allocated_peak(config: Config, example: Example) -> int:
    """Bytes that a real step takes of PyTorch's allocator at its peak, gradients included."""
    torch.manual_seed(0)
    model = build_model(config).train()
    adapt(model, config.optim.train)
    criterion: nn.Module = build_loss(config)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile, blocks_as_on("cuda"):
        total, _ = criterion(model(example.observation), example.target)
        total.backward()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    level = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return peak


@pytest.mark.parametrize("is_on", [True, False])
@pytest.mark.parametrize("trained", ["full", "lora"])
def test_activations_are_those_of_a_real_step(
    tiny_model: TinyModel, examples: Examples, is_on: bool, trained: str
) -> None:
    size = ("data.panorama.height=56", "data.panorama.width=224", f"optim/train={trained}")
    config = checkpointed(load_config([*tiny_model, *size, "task=images_only"]), is_on)
    example = examples.of(config, 2)
    counted = count_step(config, example, 1)
    # the counter has the batch as well, which the profiler saw nothing of
    assert counted.joint_bytes - counted.batch_bytes == pytest.approx(allocated_peak(config, example), rel=0.1)


def test_memory_does_not_depend_on_the_machine_that_plans(tiny_model: TinyModel, examples: Examples) -> None:
    """Blocks of the objective are those of a GPU, not of so many threads."""
    config = load_config([*tiny_model, "data.panorama.height=112", "data.panorama.width=448", "loss=overall"])
    example, threads, counted = examples.of(config, 3), torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            counted.append(count_step(config, example, 2))
    finally:
        torch.set_num_threads(threads)
    assert counted[0] == counted[1]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mapanything_v1", "mapanything_v11"])
def test_activations_at_the_width_of_released_models(model: str, examples: Examples) -> None:
    config = load_config([*FULL_WIDTH, f"model={model}"])
    example = examples.of(config, 2)
    for is_on in (True, False):
        each = checkpointed(config, is_on)
        counted = count_step(each, example, 1)
        assert counted.joint_bytes - counted.batch_bytes == pytest.approx(allocated_peak(each, example), rel=0.1)


@pytest.mark.slow
def test_a_plan_says_what_fits(tiny_model: TinyModel, town: TownConfig, tmp_path: Path) -> None:
    overrides = [
        *tiny_model,
        "trainer.devices=10",
        "strategy=ddp",
        "data.max_agents=3",
        f"data.root={town.root}",
        f"data.depth_root={town.depth_root}",
        "data.cache_dir=null",
    ]
    asked = PlanConfig(workspace_gib=0.0, nccl_gib=0.0)
    limit = 0.04
    plan = make_plan(asked, overrides, Gpus(10, limit))
    assert plan.fits
    assert plan.memory.total <= limit * GIB
    config = load_config(overrides)
    with small_town(3) as folder:
        counter = Counter(Examples(folder), asked, 10)
        need = [counter.memory(config, 3, views).total for views in (plan.most_views // 3 * 3, plan.most_views + 3)]
    assert need[0] <= limit * GIB < need[1]
    assert [row.agents for row in plan.agents] == [2, 3]
    assert plan.agents[0].batch == config.data.max_views_per_gpu // 2
    for row in plan.agents:
        assert row.checkpointed_gib < row.plain_gib
        assert row.tokens == row.views * 2 * 8
    assert min([*plan.train_batches.values(), *plan.val_batches.values()]) >= 1
    assert not plan.epoch.is_assumed
    assert (plan.epoch.val_frames, plan.epoch.val_batches) == (2, 1)
    saved = [switch.saves_gib for switch in plan.switches]
    assert saved == sorted(saved, reverse=True)
    of = {switch.setting: switch.saves_gib for switch in plan.switches}
    averages = counter.state(config).optimizer
    assert 0.75 * averages < of["strategy=ddp_zero1"] * GIB < 0.9 * averages  # the largest tensor is a fifth of all
    assert of["optim/train=heads"] > 0
    too_small = make_plan(replace(asked, switches=False, layouts=False), overrides, Gpus(10, 0.001))
    assert not too_small.fits
    assert too_small.most_views == 0


@pytest.mark.parametrize("setting", ["trainer.val_check_interval=100", "trainer.limit_train_batches=0.5"])
def test_settings_that_hold_for_whole_epochs_alone_are_planned(
    setting: str, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coopmap.planning.views.MOST", 2)  # more would fit
    asked = PlanConfig(layouts=False, switches=False)
    chosen = [*tiny_model, "trainer.devices=2", "data.max_agents=2", "data.max_views_per_gpu=2"]
    planned = make_plan(asked, [*chosen, setting], Gpus(2, 24.0)).memory.total
    assert memory_needed(load_config([*chosen, setting])) == planned > 1.4 * GIB  # CUDA and NCCL, and a tiny model


def test_a_plan_is_for_the_agents_that_training_draws(tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coopmap.planning.views.MOST", 3)  # more would fit
    agents = ["data.max_agents=3", "data.max_views_per_gpu=3", "data.sampling.agents={2: 1.0}"]
    chosen = [*tiny_model, "trainer.devices=2", *agents]
    plan = make_plan(PlanConfig(layouts=False, switches=False), chosen, Gpus(2, 24.0))
    assert [row.agents for row in plan.agents] == [2]
    assert plan.train_batches == {2: 1}
    assert plan.val_batches == {2: 1, 3: 1}
    assert memory_needed(load_config(chosen)) == plan.memory.total


@pytest.mark.parametrize(("limit", "most"), [(3, 0), (4, 5), (6, 7)])
def test_no_fewer_views_than_validation_needs_are_said_to_fit(limit: int, most: int) -> None:
    """A sample of data.max_agents has to have room, whatever training draws."""
    counter = SimpleNamespace(memory=lambda _, agents, views: SimpleNamespace(total=views // agents * agents))
    config = load_config(["machine=laptop", "data.min_agents=2", "data.max_agents=5", "data.sampling.agents={2: 1.0}"])
    assert most_views(cast(Counter, counter), config, [2], limit) == most


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        *((f"{key}={value}", "expected ") for key, value in (("fragmentation", "inf"), ("workspace_gib", "nan"))),
        *((f"{key}=inf", "expected ") for key in ("gpu_gib", "bus_gb_s")),
        ("output={}/file/plan.json", "{}/file is a file; expected a folder"),
    ],
)
def test_what_cannot_be_planned_with_is_refused_by_name(
    argument: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    argument, reason = argument.format(tmp_path), reason.format(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["plan", argument])
    assert capsys.readouterr().err.startswith(f"error: {argument}: {reason}")


@pytest.mark.slow
def test_the_command_prints_and_writes(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("coopmap.planning.views.MOST", 12)  # more would fit
    file = tmp_path / "plan.json"
    own = [f"output={file}", "switches=false", "layouts=false", "step_s=0.5", "held_gib=14", "gpu_gib=24"]
    main(["plan", *tiny_model, "data.max_agents=2", "trainer.max_epochs=2", "data.steps_per_epoch=7200", *own])
    printed, plan = capsys.readouterr().out, json.loads(file.read_text())
    assert plan["limit_gib"] == 10
    assert plan["fits"]
    assert plan["duration"]["is_measured"]
    assert plan["duration"]["run_h"] == pytest.approx(2.0, rel=0.5)
    assert "GiB of 10: fits" in printed
    assert "assumed: 1980 validation frames" in printed
    assert plan["gib"]["total"] == pytest.approx(plan["memory"]["parameters"] / GIB + 1, abs=0.1)
