"""Train MapAnything on the panoramas of connected vehicles.

What notebooks and scripts use::

    from coopmap import load_config, build_dataset, build_model, build_loss
    cfg = load_config(["experiment=cyl_posefix", "data.root=/data/opv2v"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coopmap.config import Config, ConfigError, load_config

if TYPE_CHECKING:
    from coopmap.data import PanoramaDataset
    from coopmap.losses import Criterion
    from coopmap.models import MapAnything

__all__ = ["Config", "build_dataset", "build_loss", "build_model", "load_config"]


def build_dataset(cfg: Config, split: str = "train") -> PanoramaDataset:
    """Samples of one split: ``train``, ``val`` or ``test``; renders the synthetic town if it is what is missing."""
    from coopmap.data import OPV2VDataModule

    datamodule = OPV2VDataModule(cfg.data, cfg.seed, cfg.task, cfg.priors)
    datamodule.prepare_data()
    return datamodule.dataset(split)


def build_model(cfg: Config) -> MapAnything:
    """The network, with ``cfg.model.weights`` loaded where they are given.

    Raises:
        ConfigError: the weights cannot be read or do not fit.
    """
    return build_model_and_record(cfg)[0]


def build_model_and_record(cfg: Config) -> tuple[MapAnything, dict[str, Any] | None]:
    """:func:`build_model`, and plain values that tell where its weights came from, if any were loaded."""
    from coopmap.models import MapAnything, load_weights

    model = MapAnything(cfg.model)
    if cfg.model.weights is None:
        return model, None
    try:
        loaded = load_weights(model, cfg.model.weights, submodules=cfg.model.weights_only_submodules)
    except (OSError, ValueError) as error:
        key = f"model.weights={cfg.model.weights}"
        raise ConfigError(str(error) if key in str(error) else f"{key}: {error}") from error
    return model, loaded.record()


def build_loss(cfg: Config) -> Criterion:
    """The objective: ``total, terms = criterion(prediction, target)``; in training mode until ``.eval()``."""
    from coopmap.losses import Criterion

    return Criterion(cfg.loss)
