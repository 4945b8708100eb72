import pytest
import torch

from coopmap.metrics import agent_poses, measure, slow_rows
from coopmap.metrics.covisibility import RangeImages, covisibility


def four_to_a_car(records, seed):
    """The scene of two cars, each with four cameras half a meter around its center, and the same scene per car."""
    prediction, target = records.scene(seed, batch=2, views=2)
    cameras = torch.stack(
        [
            records.yaw_pose(90.0 * k, *offset)
            for k, offset in enumerate([(0.0, 0.0, 0.5), (0.5, 0.1, 0.0), (0.0, 0.0, -0.5), (-0.5, 0.2, 0.0)])
        ]
    )
    rig = cameras.repeat(2, 1, 1).expand(2, 8, 4, 4)
    agent = torch.arange(8).div(4, rounding_mode="floor").expand(2, 8)
    pose = target.pose.repeat_interleave(4, dim=1) @ rig

    def per_camera(values):
        return values.repeat_interleave(4, dim=1)

    points = per_camera(target.points_view)
    local = torch.einsum("bvji,bvhwj->bvhwi", rig[..., :3, :3], points - rig[:, :, None, None, :3, 3])
    depth = local.norm(dim=-1)
    views = records.target(
        depth,
        pose=pose,
        rays=local / depth[..., None],
        valid=per_camera(target.valid),
        agent=agent,
        rig_pose=rig,
    )
    return views, rig, prediction, target


def test_agent_poses_follow_from_cameras_and_rig(records):
    views, _, _, target = four_to_a_car(records, 0)
    torch.testing.assert_close(agent_poses(views.pose, views).float(), target.pose, atol=1e-4, rtol=1e-4)
    assert torch.equal(agent_poses(target.pose, target), target.pose.double())


def test_cameras_that_disagree_are_averaged(records):
    views, _, _, target = four_to_a_car(records, 0)
    torn = views.pose.clone()
    torn[:, 0, 1, 3] += 4.0  # one camera of four says its car is 4 m lower
    expected = target.pose.clone()
    expected[:, 0, 1, 3] += 1.0
    torch.testing.assert_close(agent_poses(torn, views).float(), expected, atol=1e-4, rtol=1e-4)
    torn[0, 0] = torch.nan
    result = agent_poses(torn, views)
    assert result[0, 0, :3].isnan().all()
    assert result[0, 1].isfinite().all()


def test_cameras_whose_answers_cancel_leave_their_car_without_a_rotation(records):
    views, _, _, target = four_to_a_car(records, 0)
    torn = views.pose.clone()
    about = target.pose[:, :1] @ records.yaw_pose(180.0, 0.0, 0.0, 0.0) @ torch.linalg.inv(target.pose[:, :1])
    torn[:, 1:3] = about @ torn[:, 1:3]  # two of the first car's cameras have it face the other way
    result = agent_poses(torn, views)
    assert result[:, 0, :3, :3].isnan().all()
    assert result[:, 0, :3, 3].isfinite().all()
    torch.testing.assert_close(result[:, 1].float(), target.pose[:, 1], atol=1e-4, rtol=1e-4)


def test_figures_are_between_agents(records):
    views, rig, _, target = four_to_a_car(records, 1)
    wrong = target.pose.clone()
    wrong[:, 1, :3, 3] += torch.tensor([3.0, 0.0, 4.0])
    figures = measure(records.prediction(views, pose=wrong.repeat_interleave(4, dim=1) @ rig), views).samples
    assert figures["num_agents"].tolist() == [2, 2]
    assert figures["trans_m"].tolist() == pytest.approx([5, 5], rel=1e-3)
    assert figures["rot_deg"].max() < 0.1
    perfect = records.prediction(views)
    pairs = (measure(perfect, views) | slow_rows(perfect, views)).pairs
    assert pairs["trans_m"].shape == (2, 1)
    assert pairs["trans_m"].max() < 1e-3
    # each camera shows what the panorama shows, so that there are four times as many columns around an agent
    torch.testing.assert_close(pairs["covisibility"], covisibility(target, RangeImages.of(views)))


def test_unequal_numbers_of_cameras_are_refused(records):
    target = records.target(torch.ones(1, 3, 2, 2), agent=torch.tensor([[0, 0, 1]]))
    with pytest.raises(ValueError, match="the same number of views for every agent"):
        agent_poses(target.pose, target)
