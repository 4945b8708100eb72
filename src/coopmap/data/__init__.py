"""OPV2V-layout data: reading, samples with ground truth, sampling, loaders."""

from coopmap.data.datamodule import OPV2VDataModule, build_dataset
from coopmap.data.dataset import FrameDataset
from coopmap.data.requests import SampleRequest
from coopmap.data.split_dataset import build_split

__all__ = ["FrameDataset", "OPV2VDataModule", "SampleRequest", "build_dataset", "build_split"]
