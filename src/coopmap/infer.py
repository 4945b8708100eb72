"""``python -m coopmap.infer run=FOLDER|checkpoint=FILE|weights=ID images=FOLDER|frame=PATH output=FOLDER [key=value]``.

Points, depth and poses from a folder of images or from a frame of an OPV2V-layout dataset.

  run                    run folder; its best checkpoint is taken
  checkpoint             checkpoint file; it carries its configuration
  weights                weights alone: hub id owner/name[@revision], file or folder
  model                  their architecture, a choice of conf/model (mapanything_v1)
  images                 folder of .jpg and .png files, the reference view first in natural order
  frame                  ROOT/test/SCENARIO/FRAME
  agents                 agents of the frame, such as 641,650, the reference first; default: as in evaluation
  output                 folder for predictions.npz, points.ply, cameras.json, overview.png and scene.html
  camera_model           of the images: pinhole (default), or cyl: 360-degree panoramas, 4 times as wide as high
  size                   longest side of the images in pixels (518; cyl: as the model was trained)
  precision              auto (default: bf16 on GPUs, fp32 on CPUs), fp32 or bf16
  device                 auto (default), cpu, cuda, cuda:1, ...
  edges                  leave out pixels between front and back surfaces (true)
  edge_depth_ratio       relative spread of depth in 3 x 3 pixels from which on that is assumed (0.03) ...
  edge_normal_deg        ... where neighboring normals differ by this angle, too (5)
  confidence_percentile  leave out this share of each view's pixels, the least confident (0)
  max_points             points of the point cloud (500000)
  key=value              changes to the configuration, such as data.panorama.surface=sphere

From Python: ``result = infer(model, build_dataset(cfg, "val")[0].observation)``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from coopmap.cli.arguments import run_program, split_arguments
from coopmap.config import Config, ConfigError
from coopmap.config.infer import InferConfig, InferenceOptions

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor, nn

    from coopmap.inference import Inference, Views
    from coopmap.types import Observation, Prediction

log = logging.getLogger(__name__)

OWN_KEYS = tuple(field.name for field in fields(InferConfig))


def infer(
    model: nn.Module | Callable[[Observation], Prediction],
    observation: Observation,
    options: InferenceOptions | None = None,
    covered: Bool[Tensor, "v h w"] | None = None,
) -> Inference:
    """Run a model on one sample's views and clean up its answer; see :func:`coopmap.inference.infer`."""
    from coopmap.inference import infer as run

    return run(model, observation, options, covered)


def main() -> None:
    """Command line."""
    run_program(__doc__, _run)


def parse(arguments: Sequence[str]) -> tuple[InferConfig, list[str]]:
    """This program's own keys, and changes to the configuration (dotted keys).

    Raises:
        ConfigError: an unknown key, or a wrong value.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import ValidationError

    own, overrides = split_arguments(arguments, OWN_KEYS, is_override=lambda key: "." in key)
    typed = OmegaConf.structured(InferConfig)
    for key, value in own.items():
        try:
            typed[key] = value
        except ValidationError as error:
            raise ConfigError(f"{key}={value}: {str(error).splitlines()[0]}") from None
    config = OmegaConf.to_object(typed)
    assert isinstance(config, InferConfig)
    return config, overrides


def _run(arguments: Sequence[str]) -> None:
    asked, overrides = parse(arguments)
    from coopmap.inference import write_outputs
    from coopmap.inference.loading import choose_device, load_released, load_run
    from coopmap.inference.report import print_result
    from coopmap.runs.folder import find_checkpoint
    from coopmap.runs.logs import log_to

    log_to(None)
    device = choose_device(asked.device)
    if asked.weights is not None:
        origin = asked.weights
        model, config = load_released(asked.weights, asked.model, overrides)
    else:
        checkpoint = find_checkpoint(asked.run, asked.checkpoint)
        origin = str(checkpoint)
        model, config = load_run(checkpoint, overrides)
    views = _read_views(asked, config)
    result = infer(model.to(device), views.observation, _options(asked, views.camera_model), views.covered)
    print_result(views, result, origin)
    assert asked.output is not None
    for file in write_outputs(asked.output, views, result, asked.max_points, origin):
        print(f"written to {file}")


def _read_views(asked: InferConfig, config: Config) -> Views:
    """Views with the inputs that the model has always had; ground truth never is one."""
    from coopmap.inference import read_frame, read_images_of_folder

    task = config.task.for_evaluation()
    if task.depth or task.pose:
        log.warning("the model was trained with %s; here it gets images and calibration only", config.task.describe())
    if asked.frame is not None:
        agents = [agent.strip() for agent in (asked.agents or "").split(",") if agent.strip()]
        return read_frame(asked.frame, config.data, agents, with_rays=bool(task.rays))
    _check_images(asked, config)
    if task.rays:
        log.warning("the model was trained with calibrated rays; the images come without calibration")
    default_size = config.data.panorama.width if asked.camera_model == "cyl" else 518
    return read_images_of_folder(asked.images or "", asked.camera_model, asked.size or default_size)


def _check_images(asked: InferConfig, config: Config) -> None:
    """Whether the model can do with images alone, of the kind that they are."""
    model, images = config.model, f"images={asked.images}"
    if config.data.layout in ("grouped", "warped"):
        raise ConfigError(
            f"{images}: this model fuses the camera images of a car (data.layout={config.data.layout}); "
            "give it frame=ROOT/SPLIT/SCENARIO/FRAME"
        )
    if model.rig_constraint or model.view_embedding:
        raise ConfigError(
            f"{images}: this model was trained on cars with calibrated rigs (model.rig_constraint, "
            "model.view_embedding); give it frame=ROOT/SPLIT/SCENARIO/FRAME"
        )
    if (model.heads.circular or model.spherical_encoding) and asked.camera_model == "pinhole":
        raise ConfigError(
            f"{images}: this model takes its views for 360-degree panoramas (model.heads.circular, "
            "model.spherical_encoding); give it panoramas and camera_model=cyl"
        )


def _options(asked: InferConfig, camera_model: str) -> InferenceOptions:
    names = [field.name for field in fields(InferenceOptions)]
    return InferenceOptions(**{name: getattr(asked, name) for name in names} | {"camera_model": camera_model})


if __name__ == "__main__":
    main()
