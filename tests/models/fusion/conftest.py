from __future__ import annotations

import pytest

from .scenes import VARIANTS


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join(map(str, variant.values())))
def variant(request: pytest.FixtureRequest) -> dict:
    return request.param
