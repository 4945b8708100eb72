"""Pictures of samples in a report."""

import pytest

from coopmap import build_dataset, load_config
from coopmap.evaluation.html import _views
from coopmap.geometry.rig import SLOTS


@pytest.mark.parametrize(
    ("keys", "slots"),
    [
        (["data.layout=panorama"], [""]),
        (["data.layout=panorama", "data.neighbor_ticks=1"], [""]),
        (["data.layout=cameras"], [f", {slot}" for slot in SLOTS]),
        (["data.layout=grouped", "model/fusion=mean"], [""]),
    ],
)
def test_views_have_the_number_that_their_agent_has_on_the_map(
    keys: list[str], slots: list[str], tiny: list[str]
) -> None:
    sample = build_dataset(load_config([*tiny, "data.max_views_per_gpu=16", *keys]), split="val")[0]
    agents = list(dict.fromkeys(sample.meta.agents))
    assert len(agents) > 1
    titles = [[title for title, _ in views] for views in _views(sample)]
    assert titles == [[f"{number}: agent {name}{slot}" for slot in slots] for number, name in enumerate(agents)]
