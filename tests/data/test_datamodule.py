import shutil

import numpy as np
import pytest
import torch

from coopmap.data import OPV2VDataModule
from coopmap.data.budget import BadFrameBudget, BadFrameBudgetError
from coopmap.data.opv2v import DatasetLayoutError, SplitIndex, read_agent
from coopmap.data.pose_table import PoseTable, read_lidar_pose
from coopmap.types import Batch, SkippedBatch


def test_batches_do_not_depend_on_the_number_of_workers(config_of):
    def batches(workers: int) -> list[Batch]:
        return list(OPV2VDataModule(config_of(num_workers=workers), seed=1).train_dataloader())

    alone, shared = batches(0), batches(2)
    assert len(alone) == 6
    for a, b in zip(alone, shared, strict=True):
        assert a.metas == b.metas
        assert torch.equal(a.observation.images, b.observation.images)
        assert torch.equal(a.target.pose, b.target.pose)


def test_the_views_of_a_batch_stay_within_budget(config_of):
    for batch in OPV2VDataModule(config_of(max_views_per_gpu=3), seed=0).train_dataloader():
        samples, views = batch.target.pose.shape[:2]
        assert samples * views <= 3


def test_truncated_images_are_reported_and_counted_in_validation(config_of, copied_town):
    module = OPV2VDataModule(config_of(root=str(copied_town), bad_frame_budget=0.5, max_views_per_gpu=3))
    dataset = module.dataset("val")
    ref = dataset.index.frame(int(dataset.frames[0]))
    path = dataset.index.image_path(ref, ref.agents[0], 0)
    path.write_bytes(path.read_bytes()[:500])
    batches = list(module.val_dataloader())
    assert isinstance(batches[0], SkippedBatch)
    assert str(path) in batches[0].skipped[0]
    assert len([batch for batch in batches if isinstance(batch, Batch)]) == len(dataset) - 1


def test_more_unreadable_files_than_the_budget_end_the_run():
    budget = BadFrameBudget("val", num_frames=200, share=0.01)
    budget.report(["a.png: truncated", "b.yaml: not valid YAML"])
    budget.report(["a.png: truncated"])
    with pytest.raises(BadFrameBudgetError, match=r"3 files of split 'val'.*(.|\n)*c\.png: no such file"):
        budget.report(["c.png: no such file"])


def test_a_single_unreadable_file_ends_no_run_of_a_small_split():
    budget = BadFrameBudget("val", num_frames=40, share=0.01)
    budget.report(["a.png: truncated"])
    with pytest.raises(BadFrameBudgetError, match=r"allows 1:"):
        budget.report(["b.png: truncated"])
    with pytest.raises(BadFrameBudgetError, match=r"allows 0:"):
        BadFrameBudget("val", num_frames=40, share=0.0).report(["a.png: truncated"])


def test_a_truncated_yaml_is_found_before_training(config_of, copied_town):
    path = next(copied_town.glob("train/*/*/*.yaml"))
    path.write_text("camera0:\n  cords: [1, 2")
    module = OPV2VDataModule(config_of(root=str(copied_town)))
    with pytest.raises(BadFrameBudgetError, match=str(path)):
        module.dataset("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"root": "/nowhere"}, "/nowhere.*does not exist"), ({"depth_root": "/nowhere"}, "/nowhere.*does not exist")],
)
def test_missing_roots_are_named(config_of, change, message):
    with pytest.raises(DatasetLayoutError, match=message):
        OPV2VDataModule(config_of(**change)).dataset("train")


def test_an_empty_split_is_named(config_of, copied_town):
    for scenario in (copied_town / "validate").iterdir():
        for yaml_path in scenario.glob("*/*.yaml"):
            yaml_path.unlink()
    with pytest.raises(DatasetLayoutError, match=r"validate.*empty"):
        OPV2VDataModule(config_of(root=str(copied_town))).dataset("val")


def test_the_pose_table_agrees_with_the_reader_and_is_cached(town, tmp_path):
    index = SplitIndex.build(town.root, "train")
    table = PoseTable.build(index, tmp_path)
    ref = index.frame(0)
    for agent, pose in zip(ref.agents, table.poses(0), strict=True):
        np.testing.assert_allclose(pose, read_agent(index.yaml_path(ref, agent)).pose, atol=1e-9)
    assert len(list(tmp_path.glob("poses_train_*.npy"))) == 1
    np.testing.assert_array_equal(PoseTable.build(index, tmp_path).cords, table.cords)


def test_lidar_pose_of_a_recorded_file(data_dir):
    pose = read_lidar_pose(data_dir / "real" / "4279_000069.yaml")
    np.testing.assert_allclose(pose[:3], [-275.6085205078125, -19.80833625793457, 1.9313920736312866])


def test_lidar_pose_in_block_style(tmp_path):
    path = tmp_path / "000001.yaml"
    path.write_text("ego_speed: 1.0\nlidar_pose:\n- 1.0\n- 2.0\n- 3.0\n- 4.0\n- 5.0\n- 6.0\nvehicles: {}\n")
    assert read_lidar_pose(path).tolist() == [1, 2, 3, 4, 5, 6]


def test_training_poses_are_those_of_agent_pairs(config_of):
    module = OPV2VDataModule(config_of())
    poses = module.train_relative_poses()
    assert sorted(poses) == [1, 2]
    distance = poses[1][:, :3, 3].norm(dim=-1)
    assert distance.min() > 2
    assert distance.max() < 75


def test_single_agents_have_no_relative_poses(config_of, copied_town):
    for scenario in copied_town.glob("train/*"):
        for agent in sorted(path for path in scenario.iterdir() if path.is_dir())[1:]:
            shutil.rmtree(agent)
    module = OPV2VDataModule(config_of(root=str(copied_town), min_agents=1))
    assert set(module.dataset("train").num_agents) == {1}
    assert module.train_relative_poses() == {}


def test_the_cache_folder_may_start_with_a_tilde(config_of, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    OPV2VDataModule(config_of(cache_dir="~/cache")).dataset("val")[0]
    kept = {path.name.split("_")[0] for path in (tmp_path / "cache").iterdir()}
    assert {"poses", "warp"} <= kept <= {"poses", "warp", "index"}  # an index only of folders that are settled
