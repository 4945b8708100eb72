"""Loaders hand over bytes, and the device turns them into what ``dataset[i]`` gives."""

import numpy as np
import pytest
import torch

from coopmap.data import OPV2VDataModule
from coopmap.data.normalization import normalize
from coopmap.data.requests import SampleRequest
from coopmap.data.samples import collate
from coopmap.data.views import IMAGE_MEAN, IMAGE_STD
from coopmap.types import Batch, Observation

LAYOUTS = ("panorama", "cameras", "grouped", "warped")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_on_the_device_holds_what_samples_by_number_hold(config_of, layout):
    module = OPV2VDataModule(config_of(layout=layout))
    dataset = module.dataset("val")
    request = SampleRequest(int(dataset.frames[0]), int(dataset.num_agents[0]), None)
    travels = collate([dataset[request]])
    assert isinstance(travels, Batch)
    assert travels.observation.images.dtype == torch.uint8
    arrived = module.on_after_batch_transfer(travels, 0)
    expected = dataset[0].observation.images
    assert expected.dtype == torch.float32
    assert torch.equal(arrived.observation.images[0], expected)
    assert normalize(arrived) is arrived


@pytest.mark.parametrize("layout", LAYOUTS)
def test_seen_pixels_have_their_color_and_unseen_ones_the_mean(config_of, layout):
    module = OPV2VDataModule(config_of(layout=layout))
    dataset = module.dataset("train")
    raw = dataset[SampleRequest(int(dataset.frames[1]), 2, 5)]
    images = normalize(raw).observation.images.movedim(-3, -1).numpy()
    colors = raw.observation.images.movedim(-3, -1).numpy()
    seen = np.ones(colors.shape[:-1], bool)
    if layout == "panorama":
        seen = raw.target.non_ambiguous.numpy()
    elif layout == "warped":
        seen = np.isfinite(raw.observation.camera_angle.numpy())
    assert seen.all() == (layout in ("cameras", "grouped"))
    np.testing.assert_allclose(images[seen], ((colors / 255 - IMAGE_MEAN) / IMAGE_STD)[seen], atol=1e-6)
    assert (images[~seen] == 0).all()


def test_rays_that_all_samples_share_are_stored_once(config_of):
    dataset = OPV2VDataModule(config_of()).dataset("val")
    batch = collate([dataset[0], dataset[1]])
    rays = batch.observation.rays
    assert rays.shape[:2] == batch.target.pose.shape[:2]
    assert rays.untyped_storage().nbytes() == rays[0, 0].numel() * 4
    moved = batch.to("meta").observation.rays
    assert moved.shape == rays.shape
    assert moved.untyped_storage().nbytes() == rays[0, 0].numel() * 4


def test_different_tensors_are_copied_into_a_stack():
    a, b = (Observation(torch.full((1, 3, 2, 2), value), torch.zeros(1, 2, 2, 3)) for value in (1.0, 2.0))
    stacked = Observation.stack([a, b])
    assert stacked.images[:, 0, 0, 0, 0].tolist() == [1, 2]
    assert stacked.rays.shape == (2, 1, 2, 2, 3)
