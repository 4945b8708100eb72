"""What is said of views of which the model's mask leaves nothing."""

import html
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from coopmap import infer as program


@pytest.mark.parametrize("logit", [-100.0, 100.0])
def test_views_that_the_mask_empties_are_warned_of(
    logit: float,
    checkpoint: Path,
    frame: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["model.dense_head.1.conv2.2.bias"][-1] = logit
    torch.save(content, tmp_path / "masked.ckpt")
    own = [f"checkpoint={tmp_path / 'masked.ckpt'}", f"frame={frame}", f"output={tmp_path}", "edges=false"]
    monkeypatch.setattr(sys, "argv", ["infer", *own])
    program.main()
    captured = capsys.readouterr()
    printed, page = captured.out + captured.err, html.unescape((tmp_path / "scene.html").read_text())
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as file:
        names, kept, points = file["names"].tolist(), file["mask"].any(), file["points_world"]
    sentence = f"the model's mask keeps at most 0.0% of what cameras see of {', '.join(names)}: "
    assert kept == (logit > 0)
    assert (sentence in printed) == (sentence in page) == (logit < 0)
    assert ("predictions.npz" in page) == (logit < 0)
    assert np.isfinite(points).all()
