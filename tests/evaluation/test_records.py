"""Records of samples that came with pose priors."""

from dataclasses import replace

import pytest
import torch

from coopmap import build_dataset, load_config
from coopmap.evaluation.records import SampleRecord, records_of
from coopmap.geometry import relative_pose
from coopmap.metrics import measure
from coopmap.training.assembly import build_module
from coopmap.types import Batch, Observation, Sample


@pytest.fixture(scope="module")
def batch(tiny: list[str]) -> Batch:
    """Two samples of three cars, with poses that are off by meters and degrees."""
    noise = ["priors=noisy", "priors.trans_noise_m=2", "priors.rot_noise_deg=4"]
    dataset = build_dataset(load_config([*tiny, *noise]), "val")
    samples = [dataset[number] for number in range(2)]
    return Batch.collate([sample for sample in samples if isinstance(sample, Sample)])


@pytest.fixture(scope="module")
def measured(batch: Batch, tiny: list[str]):
    """Makes records of the batch from what the model received."""
    torch.manual_seed(0)
    model = build_module(load_config([*tiny, "priors=noisy"])).model.eval()
    with torch.no_grad():
        prediction = model(batch.observation)

    def records(received: Observation | None) -> list[SampleRecord]:
        return records_of(batch, prediction, measure(prediction, batch.target), received=received)

    return records


def test_errors_are_those_of_the_relative_poses(batch: Batch, measured) -> None:
    given, true = (relative_pose(pose[:, 0], pose[:, 2]) for pose in (batch.observation.pose_prior, batch.target.pose))
    expected = (given - true)[:, :3, 3].norm(dim=-1)
    for row, record in enumerate(measured(batch.observation)):
        pair = list(zip(record.pairs["i"], record.pairs["j"], strict=True)).index((0, 2))
        assert record.pairs["prior_trans_m"][pair] == pytest.approx(expected[row].item(), abs=1e-3)
        assert record.figures["prior_rot_deg"] == pytest.approx(sum(record.pairs["prior_rot_deg"]) / 3)


def test_only_samples_with_a_pose_of_every_view_count(batch: Batch, measured) -> None:
    some = torch.tensor([[True, True, True], [True, False, True]])
    partly = measured(replace(batch.observation, pose_given=some))
    assert ["prior" in record.poses for record in partly] == [True, False]
    assert "prior_trans_m" not in partly[1].pairs
    for nothing in (None, replace(batch.observation, pose_prior=None)):
        assert not any("prior" in record.poses for record in measured(nothing))
