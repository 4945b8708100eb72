from pathlib import Path

import pytest

from coopmap.config.data import DataConfig
from coopmap.data.cache_folder import with_usable_cache


def test_a_cache_that_cannot_be_written_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    unusable = DataConfig(cache_dir=str(tmp_path / "file" / "cache"))
    assert with_usable_cache(unusable).cache_dir is None
    assert "cannot be written (Not a directory); going on without it" in caplog.text
    usable = DataConfig(cache_dir=str(tmp_path / "new" / "cache"))
    assert with_usable_cache(usable) == usable
    assert not list((tmp_path / "new" / "cache").iterdir())
