"""From images to points, depth and poses: reading inputs, running a model, post-processing, writing files."""

from coopmap.config.infer import InferenceOptions
from coopmap.inference.frame import read_frame
from coopmap.inference.inputs import Views, read_images_of_folder
from coopmap.inference.outputs import write_outputs
from coopmap.inference.runner import Inference, infer

__all__ = [
    "Inference",
    "InferenceOptions",
    "Views",
    "infer",
    "read_frame",
    "read_images_of_folder",
    "write_outputs",
]
