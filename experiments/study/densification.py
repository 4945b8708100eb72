"""What `data.panorama.densify_px` adds, and how far that is from the surfaces.

    python experiments/study/densification.py data.root=ROOT data.depth_root=DEPTH_ROOT [KEY=VALUE ...]

Samples of `val` with LiDAR are compared with the same samples with dense depth, which knows what every pixel shows.
"""

import sys
from collections.abc import Sequence

import numpy as np
import torch

from coopmap import build_dataset, load_config
from coopmap.types import Sample, Target

SAMPLES = 40
RADII_PX = (0, 1, 2)


def main(overrides: Sequence[str]) -> None:
    """Print one row per radius."""
    truth, points = _targets([*overrides]), _targets([*_lidar(overrides), "data.panorama.densify_px=0"])
    known = np.mean([target.valid.float().mean().item() for target in truth])
    print(f"{len(truth)} samples; dense depth knows {known:.1%} of all pixels")
    print("| px | share of pixels with depth | added: median (m) | 90 % | 99 % | more than 20 cm off |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for radius in RADII_PX:
        found = points if radius == 0 else _targets([*_lidar(overrides), f"data.panorama.densify_px={radius}"])
        share = np.mean([target.valid.float().mean().item() for target in found])
        cells = [f"{radius}", f"{share:.1%}"]
        if radius:
            off = torch.cat([_off(*targets) for targets in zip(truth, points, found, strict=True)])
            quantiles = torch.quantile(off, torch.tensor([0.5, 0.9, 0.99])).tolist()
            cells += [*(f"{value:.3f}" for value in quantiles), f"{(off > 0.2).float().mean():.1%}"]
        print("| " + " | ".join(cells) + " |")


def _lidar(overrides: Sequence[str]) -> list[str]:
    kept = [override for override in overrides if not override.startswith("data.depth_root=")]
    return [*kept, "data.depth_root=null", "data.depth.source=lidar"]


def _targets(overrides: Sequence[str]) -> list[Target]:
    dataset = build_dataset(load_config(overrides), split="val")
    chosen = np.linspace(0, len(dataset) - 1, min(SAMPLES, len(dataset))).astype(int)
    samples = [dataset[int(number)] for number in chosen]
    return [sample.target for sample in samples if isinstance(sample, Sample)]


def _off(truth: Target, points: Target, found: Target) -> torch.Tensor:
    """Of the added pixels: on the same line of sight, so that ranges compare."""
    added = found.valid & ~points.valid & truth.valid
    return (found.depth - truth.depth).abs()[added][:20_000]


if __name__ == "__main__":
    main(sys.argv[1:])
