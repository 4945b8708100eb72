"""Reader of OPV2V and V2XSet: index, metadata, images and depth, everything in OpenCV axes and slot order."""

from coopmap.data.opv2v.depth import DepthSource, select_depth_source
from coopmap.data.opv2v.errors import (
    CorruptFrameError,
    DataError,
    DatasetLayoutError,
    ExtrinsicError,
    FrameError,
    MetadataError,
    MissingFileError,
    SwappedCamerasError,
)
from coopmap.data.opv2v.exclusion import read_exclusions
from coopmap.data.opv2v.images import read_image, read_images
from coopmap.data.opv2v.index import SPLIT_FOLDERS, FrameRef, SplitIndex, find_split_folder
from coopmap.data.opv2v.metadata import AgentMetadata, VehicleBoxes, read_agent

__all__ = [
    "SPLIT_FOLDERS",
    "AgentMetadata",
    "CorruptFrameError",
    "DataError",
    "DatasetLayoutError",
    "DepthSource",
    "ExtrinsicError",
    "FrameError",
    "FrameRef",
    "MetadataError",
    "MissingFileError",
    "SplitIndex",
    "SwappedCamerasError",
    "VehicleBoxes",
    "find_split_folder",
    "read_agent",
    "read_exclusions",
    "read_image",
    "read_images",
    "select_depth_source",
]
