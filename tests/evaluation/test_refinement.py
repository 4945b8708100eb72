import math
from types import SimpleNamespace

import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from coopmap.evaluation.refinement import most_covisible, predict_from_each_agent, refine
from coopmap.geometry.pose_averaging import average_relative_poses
from coopmap.geometry.se3 import pose_from_quat_trans, relative_pose, rotation_angle
from coopmap.types import Observation, Prediction


def random_poses(*shape: int, seed: int = 0, spread_m: float = 20.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    quat = torch.randn(*shape, 4, generator=generator, dtype=torch.float64)
    trans = spread_m * torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    return pose_from_quat_trans(quat / quat.norm(dim=-1, keepdim=True), trans)


def small_motions(*shape: int, seed: int, deg: float, meters: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    turn = math.radians(deg) * torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    shift = meters * torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    return pose_from_quat_trans(roma.rotvec_to_unitquat(turn), shift)


def all_pairs(poses: torch.Tensor) -> torch.Tensor:
    """``T_i_j`` as one pass."""
    return relative_pose(poses[:, None, :, None], poses[:, None, None])


def errors(predicted: torch.Tensor, true: torch.Tensor) -> tuple[float, float]:
    """Mean translation (m) and rotation (rad) error over all pairs."""
    a, b = all_pairs(predicted), all_pairs(true)
    trans = (a[..., :3, 3] - b[..., :3, 3]).norm(dim=-1)
    return trans.mean().item(), rotation_angle(a[..., :3, :3].mT @ b[..., :3, :3]).mean().item()


@pytest.mark.parametrize("num_views", [1, 2, 3, 5])
def test_measurements_that_agree_are_reproduced(num_views: int) -> None:
    poses = random_poses(4, num_views)
    relative = all_pairs(poses)
    weight = torch.rand(relative.shape[:4], generator=torch.Generator().manual_seed(1)) + 0.1
    assert_close(average_relative_poses(relative, weight), relative[:, 0, 0], rtol=0, atol=1e-9)


def test_pairs_that_were_not_measured_follow_from_the_others() -> None:
    poses = random_poses(3, 4)
    chain = torch.zeros(3, 1, 4, 4)
    chain[:, 0, [0, 2, 3], [1, 1, 2]] = 1.0  # 0-1, 2-1, 3-2
    assert_close(average_relative_poses(all_pairs(poses), chain), all_pairs(poses)[:, 0, 0], rtol=0, atol=1e-9)


def test_averaging_reduces_noise() -> None:
    """With n views and independent noise on each of n(n-1) measurements, the expected gain is sqrt(n)."""
    true = random_poses(200, 4, seed=3)
    relative = all_pairs(true) @ small_motions(200, 1, 4, 4, seed=4, deg=2.0, meters=0.5)
    raw = torch.cat([torch.eye(4, dtype=torch.float64).expand(200, 1, 4, 4), relative[:, 0, 0, 1:]], dim=1)
    refined = average_relative_poses(relative, torch.ones(relative.shape[:4]))
    raw_m, raw_rad = errors(raw, true)
    refined_m, refined_rad = errors(refined, true)
    assert refined_m < 0.62 * raw_m
    assert refined_rad < 0.62 * raw_rad


def test_one_wrong_pair_is_suppressed() -> None:
    true = random_poses(50, 4, seed=5)
    relative = all_pairs(true) @ small_motions(50, 1, 4, 4, seed=6, deg=0.2, meters=0.05)
    clean_m, clean_rad = errors(average_relative_poses(relative, torch.ones(50, 1, 4, 4)), true)
    wrong = pose_from_quat_trans(torch.tensor([0.0, math.sin(1.0), 0.0, math.cos(1.0)]), torch.tensor([30.0, 0.0, 9.0]))
    relative[:, :, 0, 2] = wrong.double()
    relative[:, :, 2, 0] = torch.linalg.inv(wrong.double())  # both directions agree on the mistake
    wrong_m, wrong_rad = errors(average_relative_poses(relative, torch.ones(50, 1, 4, 4)), true)
    assert wrong_m < clean_m + 0.03
    assert wrong_rad < clean_rad + math.radians(0.2)


def test_confidence_decides_between_two_answers() -> None:
    """Two views, two passes that contradict each other: the mean moves towards the one of more confidence."""
    poses = torch.eye(4, dtype=torch.float64).expand(1, 2, 2, 4, 4).clone()
    poses[0, 0, 1, 2, 3] = 10.0
    poses[0, 1, 0, 2, 3] = -12.0
    equal = refine(poses, torch.ones(1, 2, 2))[0, 1, 2, 3].item()
    leaning = refine(poses, torch.tensor([[[4.0, 4.0], [1.0, 1.0]]]))[0, 1, 2, 3].item()
    assert equal == pytest.approx(11.0, abs=1e-6)
    assert 10.0 <= leaning < 10.5


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_answer_does_not_depend_on_the_world_frame_or_the_order_of_views(seed: int) -> None:
    true = random_poses(2, 4, seed=seed)
    relative = all_pairs(true) @ small_motions(2, 1, 4, 4, seed=seed + 1, deg=3.0, meters=1.0)
    weight = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(seed)) + 0.2
    answer = average_relative_poses(relative, weight)
    assert_close(answer[:, 0], torch.eye(4, dtype=torch.float64).expand(2, 4, 4), rtol=0, atol=1e-9)

    order = torch.tensor([2, 0, 3, 1])
    permuted = average_relative_poses(relative[:, :, order][:, :, :, order], weight[:, :, order][:, :, :, order])
    assert_close(permuted, relative_pose(answer[:, order[:1]], answer[:, order]), rtol=0, atol=1e-5)

    turned = random_poses(2, 4, seed=seed + 2, spread_m=0.0)  # other axes for every car
    in_other_axes = average_relative_poses(turned.mT[:, None, :, None] @ relative @ turned[:, None, None], weight)
    assert_close(in_other_axes, turned[:, :1].mT @ answer @ turned, rtol=0, atol=1e-5)


def reads_off_its_input(observation: Observation) -> Prediction:
    """A model that answers with the pose prior, in the frame of the first view, and a confidence that is the image."""
    pose = observation.pose_prior
    assert pose is not None
    relative = relative_pose(pose[:, :1], pose)
    ones, zeros = torch.ones(*pose.shape[:2], 1, 1), torch.zeros(*pose.shape[:2], 1, 1, 3)
    quat = roma.rotmat_to_unitquat(relative[..., :3, :3])
    confidence = observation.images.mean(dim=(2, 3, 4))[..., None, None]
    return Prediction(zeros, ones, relative[..., :3, 3], quat, torch.ones(2), confidence, ones, zeros, zeros)


def test_passes_come_back_in_the_order_of_the_views() -> None:
    true = random_poses(2, 3, seed=8).float()
    images = torch.tensor([1.0, 2.0, 3.0])[None, :, None, None, None].expand(2, 3, 3, 1, 1)
    observation = Observation(images, torch.zeros(2, 3, 1, 1, 3), pose_prior=true)
    poses, confidence = predict_from_each_agent(reads_off_its_input, observation, reads_off_its_input(observation))
    expected = relative_pose(true[:, :, None], true[:, None]).double()
    assert_close(poses, expected, rtol=1e-4, atol=1e-4)
    assert_close(confidence, torch.tensor([1.0, 2.0, 3.0]).double().expand(2, 3, 3))
    assert_close(refine(poses, confidence), expected[:, 0], rtol=1e-4, atol=1e-4)


def test_cameras_of_a_car_stay_together() -> None:
    true = random_poses(2, 6, seed=9).float()
    agent = torch.tensor([0, 0, 1, 1, 2, 2]).expand(2, 6)
    observation = Observation(torch.ones(2, 6, 3, 1, 1), torch.zeros(2, 6, 1, 1, 3), pose_prior=true, agent=agent)
    orders = []

    def model(given: Observation) -> Prediction:
        assert given.agent is not None
        orders.append(given.agent[0].tolist())
        return reads_off_its_input(given)

    poses, _ = predict_from_each_agent(model, observation)
    assert orders == [[0, 0, 1, 1, 2, 2], [1, 1, 0, 0, 2, 2], [2, 2, 0, 0, 1, 1]]
    assert_close(poses, relative_pose(true[:, ::2, None], true[:, None]).double(), rtol=1e-4, atol=1e-4)


def test_what_no_measurement_links_to_view_0_is_unknown() -> None:
    relative = all_pairs(random_poses(3, 5, seed=10))
    weight = torch.zeros(3, 1, 5, 5)
    weight[0, 0, [1, 3], [0, 4]] = 1.0  # 0-1, and 3-4 among themselves
    weight[1] = 1.0
    average = average_relative_poses(relative, weight)
    assert_close(average[0, :2], relative[0, 0, 0, :2], rtol=0, atol=1e-9)
    assert average[0, 2:].isnan().all()
    assert_close(average[1], relative[1, 0, 0], rtol=0, atol=1e-9)
    assert_close(average[2, 0], torch.eye(4, dtype=torch.float64))  # nothing measured
    assert average[2, 1:].isnan().all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_measurements_that_are_not_finite_are_none(value: float) -> None:
    relative = all_pairs(random_poses(2, 3, seed=11))
    weight = torch.ones(2, 1, 3, 3)
    expected = relative[:, 0, 0].clone()
    relative[0, 0, 1, 2, 0, 3] = value
    weight[0, 0, 2, 0] = value
    assert_close(average_relative_poses(relative, weight), expected, rtol=0, atol=1e-9)
    relative[1, 0, 2], relative[1, 0, :, 2] = value, value
    average = average_relative_poses(relative, weight)
    assert_close(average[:, :2], expected[:, :2], rtol=0, atol=1e-9)
    assert average[1, 2].isnan().all()


@given(st.integers(0, 10_000))
def test_answers_half_a_turn_apart_have_no_average(seed: int) -> None:
    """From view 0 and from view 1, with equal weight; a third view does not help, as long as it is told nothing."""
    poses = random_poses(1, 2, seed=seed)
    axis = random_poses(1, seed=seed + 1)[..., :3, :3]
    half_turn = torch.eye(4, dtype=torch.float64)
    half_turn[:3, :3] = axis @ torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)) @ axis.mT
    relative = all_pairs(poses)
    relative[:, :, 1, 0] = torch.linalg.inv(relative[:, :, 0, 1] @ half_turn)
    average = average_relative_poses(relative, torch.ones(1, 1, 2, 2))
    assert_close(average[:, 0], torch.eye(4, dtype=torch.float64)[None])
    assert average[:, 1].isnan().all()
    leaning = average_relative_poses(relative, torch.tensor([[[[0.0, 3.0], [1.0, 0.0]]]]))
    assert_close(leaning[:, 1, :3, :3], relative[:, 0, 0, 1, :3, :3], rtol=0, atol=1e-6)


def test_the_reference_chosen_shares_most_with_all_others() -> None:
    """Pairs 01, 02, 03, 12, 13, 23. In the second sample agent 2 has the surest pair, and agent 1 more in all."""
    expected = torch.tensor([[0.5, 0.9, 0.5, 0.1, 0.1, 0.1], [0.6, 0.0, 0.0, 0.7, 0.6, 0.8]])
    assert most_covisible(SimpleNamespace(covisibility_logit=expected.logit(1e-3)), 4).tolist() == [0, 1]  # type: ignore[arg-type]
