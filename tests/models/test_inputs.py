"""Geometric inputs that are drawn: what is given to whom, and that nothing else matters."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from coopmap import load_config as load_whole_config
from coopmap.config.priors import PriorsConfig
from coopmap.config.task import TaskConfig
from coopmap.models import MapAnything
from coopmap.training.inputs import draw_inputs
from coopmap.types import Observation, Prediction

from .support import load_config, make_observation

FIELDS = [field.name for field in dataclasses.fields(Prediction) if field.name != "matches"]
MASKS = ("rays_given", "depth_given", "pose_given")
AUGMENTED = load_whole_config(["machine=laptop", "task=augmented"]).task


def observation_with_priors(batch: int, views: int, height: int = 28, width: int = 42) -> Observation:
    generator = torch.Generator().manual_seed(3)
    pose = torch.eye(4).repeat(batch, views, 1, 1)
    pose[..., :3, 3] = torch.randn(batch, views, 3, generator=generator) * 10
    depth = torch.rand(batch, views, height, width, generator=generator) + 1
    return dataclasses.replace(make_observation(batch, views, height, width), depth_prior=depth, pose_prior=pose)


def draw(observation: Observation, task: TaskConfig, seed: int = 0) -> Observation:
    return draw_inputs(observation, task, PriorsConfig(), torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> MapAnything:
    torch.manual_seed(0)
    inputs = {"rays": True, "depth": True, "pose": True}
    return MapAnything(load_config("mapanything_tiny", {"inputs": inputs})).eval()


def assert_identical(first: Prediction, second: Prediction) -> None:
    for name in FIELDS:
        assert torch.equal(getattr(first, name), getattr(second, name)), name


def test_frequencies_are_those_of_the_task():
    batch, views = 20_000, 3
    small = Observation(
        images=torch.zeros(batch, views, 3, 1, 1),
        rays=torch.zeros(batch, views, 1, 1, 3),
        depth_prior=torch.ones(batch, views, 1, 1),
        pose_prior=torch.eye(4).expand(batch, views, 4, 4),
    )
    drawn = draw(small, AUGMENTED)
    for name in MASKS:
        given = getattr(drawn, name)
        assert given.float().mean().item() == pytest.approx(0.9 * 0.5 * 0.95, abs=0.01)
        assert given.any(dim=1).float().mean().item() == pytest.approx(0.9 * 0.5, abs=0.015)  # drawn per sample
    anything = torch.stack([getattr(drawn, name) for name in MASKS]).any(dim=0)
    assert anything.any(dim=1).float().mean().item() == pytest.approx(0.9 * (1 - 0.5**3), abs=0.015)
    # dropout takes all inputs of a view at once: where its sample has all three, a view has three or none
    every = torch.stack([getattr(drawn, name).any(dim=1) for name in MASKS]).all(dim=0)
    counts = sum(getattr(drawn, name)[every].int() for name in MASKS)
    assert set(counts.unique().tolist()) == {0, 3}
    assert (counts == 0).float().mean().item() == pytest.approx(0.05, abs=0.01)
    for name in ("depth_is_metric", "pose_is_metric"):
        assert getattr(drawn, name).float().mean().item() == pytest.approx(0.95, abs=0.01)
    known = (drawn.depth_prior > 0).float()
    assert known.mean().item() == pytest.approx(1 - 0.5 * 0.9, abs=0.015)


def test_thinning_is_decided_per_sample_and_keeps_values():
    observation = observation_with_priors(40, 2)
    drawn = draw(observation, AUGMENTED).depth_prior
    share = (drawn > 0).float().mean(dim=(1, 2, 3))
    assert ((share == 1) | ((share - 0.1).abs() < 0.03)).all()
    assert 8 < (share == 1).sum() < 32
    kept = drawn > 0
    assert torch.equal(drawn[kept], observation.depth_prior[kept])


def test_the_generator_alone_decides():
    observation = observation_with_priors(8, 3)
    first, again, other = (draw(observation, AUGMENTED, seed) for seed in (5, 5, 6))
    torch.manual_seed(99)
    for name in (*MASKS, "depth_is_metric", "pose_is_metric", "depth_prior"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    assert any(not torch.equal(getattr(first, name), getattr(other, name)) for name in MASKS)


@pytest.mark.parametrize(
    ("task", "given"),
    [
        ("images_only", set()),
        ("calibrated", {"rays"}),
        ("posed", {"pose"}),
        ("registration", {"rays", "depth"}),
    ],
)
def test_tasks_without_chance(task, given):
    config = load_whole_config(["machine=laptop", f"task={task}"])
    assert config.task.name == task
    observation = observation_with_priors(4, 2)
    for chosen in (config.task, config.task.for_evaluation()):
        drawn = draw(observation, chosen)
        assert {name.removesuffix("_given") for name in MASKS if getattr(drawn, name).all()} == given
        assert {name.removesuffix("_given") for name in MASKS if getattr(drawn, name).any()} == given
        assert (drawn.depth_prior is not None) == ("depth" in given)
        assert (drawn.pose_prior is not None) == ("pose" in given)
    assert {kind for kind in ("rays", "depth", "pose") if getattr(config.model.inputs, kind)} == given


def test_a_mixed_task_is_evaluated_on_images_alone():
    evaluation = AUGMENTED.for_evaluation()
    assert evaluation.describe() == "images only"
    assert not any(getattr(draw(observation_with_priors(4, 2), evaluation), name).any() for name in MASKS)
    assert "poses (in part of the samples)" in AUGMENTED.describe()


@torch.no_grad()
def test_inputs_that_are_not_given_have_no_influence(model):
    observation = observation_with_priors(2, 3)
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    withheld = dataclasses.replace(observation, rays_given=nothing, depth_given=nothing, pose_given=nothing)
    images_only = MapAnything(load_config("mapanything_tiny")).eval()
    images_only.load_state_dict(model.state_dict(), strict=False)
    assert_identical(model(withheld), images_only(observation))


@pytest.mark.parametrize("kind", ["rays", "depth", "pose"])
@torch.no_grad()
def test_a_view_without_an_input_does_not_see_it(model, kind):
    """Not even through the normalization that views share."""
    observation = observation_with_priors(1, 3)
    given = torch.tensor([[True, False, True]])
    field = "rays" if kind == "rays" else f"{kind}_prior"
    changed = getattr(observation, field).clone()
    changed[:, 1] = changed[:, 1].roll(1, dims=-1) if kind == "rays" else changed[:, 1] * 3
    if kind == "pose":
        changed[:, 1, 3] = torch.tensor([0.0, 0.0, 0.0, 1.0])
        changed[:, 1, :3, :3] = torch.eye(3)
    masked = dataclasses.replace(observation, **{f"{kind}_given": given})
    assert_identical(model(masked), model(dataclasses.replace(masked, **{field: changed})))
    seen = model(dataclasses.replace(observation, **{field: changed}))
    assert not torch.equal(seen.depth, model(observation).depth)


@pytest.mark.parametrize("correction", [False, True])
@torch.no_grad()
def test_a_pose_of_view_0_that_is_not_given_is_no_reference_for_the_others(correction):
    torch.manual_seed(0)
    changes = {"inputs": {"pose": True}, "pose_correction": correction}
    model = MapAnything(load_config("mapanything_tiny", changes)).eval()
    for parameter in model.parameters():  # as after some training: what starts at zero hides all influence
        parameter.add_(0.05 * torch.randn_like(parameter))
    observation = observation_with_priors(2, 3)
    moved = observation.pose_prior.clone()
    moved[:, 0, :3, 3] += torch.tensor([100.0, 0.0, 50.0])
    given = torch.tensor([[False, True, True], [True, True, False]])
    of_both = dataclasses.replace(observation, pose_given=given)
    nothing = dataclasses.replace(observation, pose_given=torch.zeros_like(given))
    answers = [model(each) for each in (of_both, dataclasses.replace(of_both, pose_prior=moved), nothing)]
    first, second, without = (answer.map(lambda tensor: tensor[:1]) for answer in answers)
    assert_identical(first, second)
    assert_identical(first, without)
    assert not torch.equal(answers[0].pose_trans[1], answers[1].pose_trans[1])  # where it is given, it is the reference


@torch.no_grad()
def test_depth_of_which_nothing_is_known_is_no_depth(model):
    observation = observation_with_priors(1, 2)
    empty = dataclasses.replace(observation, depth_prior=torch.zeros_like(observation.depth_prior))
    assert_identical(model(empty), model(dataclasses.replace(observation, depth_prior=None)))


@torch.no_grad()
def test_metric_and_other_samples_of_a_batch_do_not_mix(model):
    observation = observation_with_priors(2, 2)
    metric = torch.tensor([[True, True], [False, False]])
    mixed = model(dataclasses.replace(observation, depth_is_metric=metric, pose_is_metric=metric))
    for index, value in enumerate((True, False)):
        alone = observation.map(lambda tensor, index=index: tensor[index : index + 1])
        alone = dataclasses.replace(
            alone, depth_is_metric=torch.full((1, 2), value), pose_is_metric=torch.full((1, 2), value)
        )
        for name in FIELDS:
            torch.testing.assert_close(
                getattr(mixed, name)[index : index + 1], getattr(model(alone), name), rtol=1e-4, atol=1e-4
            )


@pytest.mark.parametrize("given", [set(), {"rays"}, {"depth"}, {"pose"}, {"rays", "depth", "pose"}])
def test_every_parameter_takes_part_in_every_training_step(given):
    """Whatever was drawn, and whatever priors the data has: DDP would wait for a gradient that never comes."""
    inputs = {"rays": True, "depth": True, "pose": True}
    model = MapAnything(load_config("mapanything_tiny", {"inputs": inputs})).train()
    observation = observation_with_priors(1, 2)
    masks = {f"{kind}_given": torch.full((1, 2), kind in given) for kind in inputs}
    absent = {f"{kind}_prior": None for kind in ("depth", "pose") if kind not in given}
    prediction = model(dataclasses.replace(observation, **masks, **absent))
    sum(getattr(prediction, name).square().mean() for name in FIELDS).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    encoders = {"rays": model.ray_dirs_encoder, "depth": model.depth_encoder, "pose": model.cam_rot_encoder}
    for kind, encoder in encoders.items():
        moved = any(bool(parameter.grad.any()) for parameter in encoder.parameters())
        assert moved == (kind in given), kind


def test_a_task_needs_the_encoders():
    with pytest.raises(ValueError, match=r"task=posed gives pose, .*model\.inputs\.pose"):
        load_whole_config(["machine=laptop", "task=posed", "model.inputs.pose=false"])


def test_probabilities_are_checked():
    with pytest.raises(ValueError, match=r"task\.rays=1\.5: expected a probability"):
        TaskConfig(rays=1.5)
