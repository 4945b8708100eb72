"""The script that fills the measured table, tried at tiny size."""

import pytest

from coopmap.planning.measured import measured_table


@pytest.mark.slow
def test_steps_are_measured_beside_their_plan(tiny_model: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    base = {"tiny": [*tiny_model, "data.min_agents=2", "data.max_agents=2", "data.max_views_per_gpu=2"]}
    switches = {
        "as planned": (),
        "checkpointed": tuple(f"model.checkpointing.{part}=true" for part in ("encoder", "info_sharing", "heads")),
        "impossible": ("optim/train=matching",),
    }
    said: list[str] = []
    rows = measured_table(base, switches, steps=2, say=said.append).records()
    plain, checkpointed = rows[:2]
    assert plain["step_s"] > 0
    assert 0 < checkpointed["planned_gib"] < plain["planned_gib"]
    assert "no such part" in str(rows[2])
    assert len(said) == 3
