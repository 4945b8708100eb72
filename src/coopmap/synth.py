"""Render the synthetic town: ``python -m coopmap.synth [key=value ...]``."""

from __future__ import annotations

import os
import sys
from typing import cast

from omegaconf import DictConfig, OmegaConf

from coopmap.cli.hydra_main import user_errors_end_quietly
from coopmap.config import conf_dir
from coopmap.config.errors import config_keys, explain
from coopmap.config.synth import TownConfig


def main() -> None:
    """Compose the configuration from the command line and render."""
    with user_errors_end_quietly():
        config = _compose()
        if config is not None:
            from coopmap.synthetic import render_town

            render_town(config)


def _compose() -> TownConfig | None:
    """The configuration, or ``None`` when Hydra only had to show something (``--help``, ``--cfg job``)."""
    import hydra
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="town_schema", node=TownConfig)
    composed: list[DictConfig] = []
    show_all = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands exceptions on instead of printing them
    try:
        hydra.main(config_path=str(conf_dir()), config_name="synth", version_base="1.3")(composed.append)()
        return cast(TownConfig, OmegaConf.to_object(composed[0])) if composed else None
    except Exception as error:
        if show_all == "1":
            raise
        raise explain(error, config_keys(TownConfig), [], sys.argv[1:]) from None
    finally:
        os.environ["HYDRA_FULL_ERROR"] = show_all or "0"


if __name__ == "__main__":
    main()
