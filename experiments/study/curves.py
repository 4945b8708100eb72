"""Curves of the study's arms (PROTOCOL.md): how they learn over steps and FLOPs, errors, numbers of streets.

    python experiments/study/curves.py OUT PICTURE.webp

OUT is the folder of ``arms.sh``: runs by the names of their arms, with evaluations in them. Arms that are not there are
left out; arms of one name and several seeds share a color. Needs playwright and a Chromium in the path, as the pictures
of ``docs`` do.

- The loss of matches in training, smoothed. With 2,400 streets each frame is drawn once at most, so that it is of
  streets that the model has not seen. The same over floating-point operations.
- Errors of co-visible pairs of the test streets: the share below each error.
- Median errors of the same over the number of streets that were trained on.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from playwright.sync_api import sync_playwright
from plotly.subplots import make_subplots
from table import COVISIBLE, read_pairs

from coopmap.report.palette import BLUE, GRAY, GREEN, LOG_AXIS, ORANGE, PURPLE, VERMILLION, figure_style

ARMS = {
    "panorama": BLUE,
    "mosaic": VERMILLION,
    "cameras_rig": ORANGE,
    "fusion_concat": GREEN,
    "fusion_cross_attention": PURPLE,
    "regression_panorama": GRAY,
}
"""Compared over steps and FLOPs: names without the seed, colors."""
LABELS = {
    "cameras_rig": "four cameras, rays and rig",
    "fusion_concat": "fusion by concatenation",
    "fusion_cross_attention": "fusion by cross-attention",
    "regression_panorama": "panorama, regression",
}
MATCHING = "train/matching"
SMOOTHED_STEPS = 50
FRAMES_PER_STEP = 2
FEWER_STREETS, ALL_STREETS = (1, 16, 256), 2400


def main() -> None:
    """Draw all panels."""
    out, picture = Path(sys.argv[1]), Path(sys.argv[2])
    titles = ["matches while training", "the same by computation", "errors on 200 unseen streets"]
    has_fewer = any((out / f"streets{number}_0").exists() for number in FEWER_STREETS)
    below = [{}, {}] if has_fewer else [{"colspan": 2}, None]
    titles += ["by number of streets"] * has_fewer
    figure = make_subplots(
        2, 2, specs=[[{}, {}], below], subplot_titles=titles, horizontal_spacing=0.09, vertical_spacing=0.13
    )
    for name, color in ARMS.items():
        for number, run in enumerate(seeds(out, name)):
            style = {"name": LABELS.get(name, name.replace("_", " ")), "legendgroup": name, "line": {"color": color}}
            add_loss(figure, run, style)
            add_errors(figure, run, style, shown=number == 0)
    label_axes(figure)
    if has_fewer:
        for arm, fewer in (("panorama", "streets"), ("regression_panorama", "regression_streets")):
            add_streets(figure, by_streets(out, arm, fewer), ARMS[arm])
        figure.add_hline(training_mean(out), line_dash="dot", line_color=GRAY, row=2, col=2)
        figure.update_xaxes(title="training streets", type="log", tickvals=[*FEWER_STREETS, ALL_STREETS], row=2, col=2)
        figure.update_yaxes(title="median error (m)", type="log", tickvals=[1, 2, 5, 10, 17], row=2, col=2)
    draw(figure, picture)


def seeds(out: Path, name: str) -> list[Path]:
    """Runs of one arm."""
    return sorted(path for path in out.glob(f"{name}_*") if re.fullmatch(rf"{name}_\d", path.name))


def add_loss(figure: go.Figure, run: Path, style: dict) -> None:
    """Loss of matches over steps and over floating-point operations."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(MATCHING)]
    if not rows:
        return
    steps = np.array([int(row["step"]) + 1 for row in rows])
    loss = smoothed(np.array([float(row[MATCHING]) for row in rows]), max(1, SMOOTHED_STEPS // int(np.diff(steps)[0])))
    steps = steps[len(steps) - len(loss) :]
    tera = json.loads((run / "model.json").read_text())["training_flops"] * FRAMES_PER_STEP / 1e12
    figure.add_scatter(x=steps, y=loss, row=1, col=1, showlegend=False, **style)
    figure.add_scatter(x=steps * tera, y=loss, row=1, col=2, showlegend=False, **style)


def smoothed(values: Float[np.ndarray, " n"], width: int) -> Float[np.ndarray, " m"]:
    """Mean of as many values up to each."""
    return np.convolve(values, np.ones(width) / width, mode="valid")


def add_errors(figure: go.Figure, run: Path, style: dict, shown: bool) -> None:
    """Share of pairs below each error."""
    meters = np.sort(errors(run))
    if len(meters):
        share = np.arange(1, len(meters) + 1) / len(meters)
        figure.add_scatter(x=meters, y=share, row=2, col=1, showlegend=shown, **style)


def errors(run: Path, prefix: str = "") -> Float[np.ndarray, " p"]:
    """Translation errors of co-visible pairs, in meters; of pairs without an answer infinity."""
    if not (run / "evaluation_test" / "pairs.csv").exists():
        return np.zeros(0)
    pairs = read_pairs(run / "evaluation_test", "", prefix).values()
    meters = np.array([pair["trans_m"] for pair in pairs if pair["covisibility"] > COVISIBLE])
    return np.where(np.isfinite(meters), meters, np.inf)


def training_mean(out: Path) -> float:
    """Median error of always answering the training mean."""
    return float(np.median(next(errors(run, "training_mean_") for run in seeds(out, "panorama"))))


def add_streets(figure: go.Figure, found: Iterator[tuple[int, Float[np.ndarray, " p"]]], color: str) -> None:
    """Median error by the number of streets."""
    points = [(number, float(np.median(meters))) for number, meters in found if len(meters)]
    if points:
        numbers, medians = zip(*points, strict=True)
        figure.add_scatter(
            x=numbers, y=medians, mode="lines+markers", row=2, col=2, showlegend=False, line={"color": color}
        )


def by_streets(out: Path, arm: str, fewer: str) -> Iterator[tuple[int, Float[np.ndarray, " p"]]]:
    """Numbers of streets and errors: of the arms with fewer, and with all of them of each seed."""
    for number in FEWER_STREETS:
        yield number, errors(out / f"{fewer}{number}_0")
    for run in seeds(out, arm):
        yield ALL_STREETS, errors(run)


def label_axes(figure: go.Figure) -> None:
    """Units, scales and ticks."""
    figure.update_xaxes(title="step", row=1, col=1)
    figure.update_yaxes(title="cross entropy of matches", row=1, col=1)
    figure.update_xaxes(title="TFLOP", row=1, col=2)
    figure.update_xaxes(title="translation error up to (m)", **LOG_AXIS, range=[-1, 1.6], row=2, col=1)
    figure.update_yaxes(title="share of co-visible pairs", tickformat=".0%", row=2, col=1)
    figure.update_traces(line_width=1.6)
    figure.update_layout(template=figure_style("light"), paper_bgcolor="white", margin={"t": 40, "r": 20})
    figure.update_layout(legend={"orientation": "h", "y": -0.1})


def draw(figure: go.Figure, picture: Path) -> None:
    """The figure as Chromium draws it."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program)
        page = browser.new_page(viewport={"width": 1100, "height": 860}, device_scale_factor=1.5)
        page.set_content(figure.to_html(config={"staticPlot": True}, default_height="830px"), timeout=120_000)
        page.wait_for_selector(".main-svg")
        drawn = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        browser.close()
    cv2.imwrite(str(picture), drawn, [cv2.IMWRITE_WEBP_QUALITY, 85])


if __name__ == "__main__":
    main()
