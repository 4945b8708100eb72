"""A scenario of the training split that is validated on is said."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coopmap.config.data import DataConfig
from coopmap.data import OPV2VDataModule


@pytest.mark.parametrize("name", [None, "under_another_name"])
def test_a_scenario_that_is_trained_on_is_named(
    name: str | None, config_of: Callable[..., DataConfig], copied_town: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scenario = sorted(path for path in (copied_town / "train").iterdir() if path.is_dir())[0]
    shutil.copytree(scenario, copied_town / "validate" / (name or scenario.name))
    data = OPV2VDataModule(replace(config_of(), root=str(copied_town), depth_root=None))
    with caplog.at_level(logging.WARNING):
        data.describe()
    assert f"val holds 1 of the scenarios that train holds ({name or scenario.name})" in caplog.text


def test_streets_of_their_own_are_no_news(
    config_of: Callable[..., DataConfig], caplog: pytest.LogCaptureFixture
) -> None:
    OPV2VDataModule(config_of()).describe()
    assert not caplog.records
