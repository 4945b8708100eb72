"""From the options of an inference to its files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from coopmap.config import Config, ConfigError
from coopmap.config.infer import PATCH, InferConfig, InferenceOptions
from coopmap.data.views import panorama_spec
from coopmap.inference.export import check_exports, write_exports
from coopmap.inference.frame import read_frame
from coopmap.inference.inputs import Views, read_images_of_folder
from coopmap.inference.loading import choose_device, load_released, load_run
from coopmap.inference.masks import masked_out
from coopmap.inference.outputs import write_outputs
from coopmap.inference.pairs import unsupported_agents
from coopmap.inference.rays import rays_to_doubt
from coopmap.inference.report import print_result
from coopmap.inference.runner import infer
from coopmap.runs.find import find_checkpoint
from coopmap.runs.outputs import replace_outputs

log = logging.getLogger(__name__)


def run_inference(asked: InferConfig, overrides: Sequence[str] = ()) -> list[Path]:
    """Open a model, run it on the requested views, print and write the results.

    Args:
        asked: options of the inference.
        overrides: of the stored or composed configuration.

    Returns:
        The files.

    Raises:
        ConfigError: something requested does not exist or does not fit.
    """
    device = choose_device(asked.device)
    if asked.weights is not None:
        origin = asked.weights
        model, config = load_released(asked.weights, asked.model, overrides)
    else:
        checkpoint = find_checkpoint(asked.run, asked.checkpoint, asked.runs_root)
        origin = str(checkpoint)
        model, config = load_run(checkpoint, overrides)
    views = read_views(asked, config)
    check_exports(asked.export, views, asked.images)
    result = infer(model.to(device), views.observation, _options(asked, views.camera_model), views.covered)
    print_result(views, result, origin)
    for sentence in [*unsupported_agents(views, result), *rays_to_doubt(views, result), *masked_out(views, result)]:
        log.warning("%s", sentence)
    assert asked.output is not None
    files = write_outputs(asked.output, views, result, asked.max_points, origin)
    folder = files[0].parent
    files += write_exports(folder, views, result, asked.export, asked.images, asked.max_points)
    replace_outputs(folder, "infer", files)
    return files


def read_views(asked: InferConfig, config: Config) -> Views:
    """Views with the inputs that the model always had in training; never ground truth.

    Raises:
        ConfigError: they cannot be read, or do not suit the model.
    """
    task = config.task.for_evaluation()
    if task.depth or task.pose:
        log.warning("the model was trained with %s; here it gets images and calibration only", config.task.describe())
    if asked.frame is not None:
        return read_frame(asked.frame, config.data, asked.agents, with_rays=bool(task.rays))
    _check_images(asked, config)
    if task.rays:
        log.warning("the model was trained with calibrated rays; the images come without calibration")
    default_size = config.data.panorama.width if asked.camera_model == "cyl" else 518
    size, camera = asked.size or default_size, panorama_spec(config.data.panorama).camera
    return read_images_of_folder(asked.images or "", asked.camera_model, size, camera)


def _check_images(asked: InferConfig, config: Config) -> None:
    """Check that the model works on images alone, of the given kind."""
    model, images = config.model, f"images={asked.images}"
    if config.data.layout in ("grouped", "warped"):
        raise ConfigError(
            f"{images}: this model fuses the camera images of an agent (data.layout={config.data.layout}); "
            "give it frame=ROOT/SPLIT/SCENARIO/FRAME"
        )
    if config.data.layout == "mosaic":
        raise ConfigError(
            f"{images}: this model was trained on the four cameras of a car side by side, with their calibration "
            "(data.layout=mosaic); give it frame=ROOT/SPLIT/SCENARIO/FRAME"
        )
    if model.rig_constraint or model.view_embedding:
        raise ConfigError(
            f"{images}: this model was trained on agents with calibrated rigs (model.rig_constraint, "
            "model.view_embedding); give it frame=ROOT/SPLIT/SCENARIO/FRAME"
        )
    if model.matching.gravity:
        raise ConfigError(
            f"{images}: this model is told where down is (model.matching.gravity), which images do not say; give it "
            "frame=ROOT/SPLIT/SCENARIO/FRAME, or model.matching.gravity=false"
        )
    if model.encoder.patch_size != PATCH:
        raise ConfigError(
            f"{images}: this model has patches of {model.encoder.patch_size} pixels (model.encoder.patch_size), and "
            f"loose images are cut into patches of {PATCH}; give it frame=ROOT/SPLIT/SCENARIO/FRAME"
        )
    kinds = {"pinhole": "perspective images", "cyl": "360-degree panoramas"}
    if asked.weights is None:  # the model of a run, which knows what it was trained on
        trained_on = "pinhole" if config.data.layout == "cameras" else "cyl"
    else:
        trained_on = "cyl" if model.heads.circular or model.spherical_encoding else asked.camera_model
    if asked.camera_model != trained_on:
        raise ConfigError(
            f"{images}: this model expects {kinds[trained_on]}, which it was trained on (data.layout="
            f"{config.data.layout}), and camera_model={asked.camera_model} says that these are "
            f"{kinds[asked.camera_model]}; give it {kinds[trained_on]} and camera_model={trained_on}"
        )
    if model.matching.enabled and model.matching.rays == "calibrated" and asked.camera_model == "pinhole":
        raise ConfigError(
            f"{images}: this model matches agents along calibrated rays (model.matching.rays), which photographs lack; "
            "give it frame=ROOT/SPLIT/SCENARIO/FRAME"
        )


def _options(asked: InferConfig, camera_model: str) -> InferenceOptions:
    names = [field.name for field in fields(InferenceOptions)]
    return InferenceOptions(**{name: getattr(asked, name) for name in names} | {"camera_model": camera_model})
