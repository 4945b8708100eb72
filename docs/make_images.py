"""Draw docs/images/panorama.png: what the cars of one frame see, and how far it is.

python docs/make_images.py data.root=... data.depth_root=... data.panorama.width=1008 data.panorama.height=252
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from coopmap import build_dataset, load_config
from coopmap.data.views import IMAGE_MEAN, IMAGE_STD

GAP = 6
FAR_M = 60.0


def main() -> None:
    """One row per agent: panorama, then range (near is bright)."""
    sample = build_dataset(load_config(sys.argv[1:]), "val")[0]
    rows = []
    for image, depth, covered in zip(
        sample.observation.images, sample.target.depth, sample.target.non_ambiguous, strict=True
    ):
        rgb = (image.permute(1, 2, 0).numpy() * IMAGE_STD + IMAGE_MEAN) * 255
        rgb[~covered.numpy()] = 255
        known = depth.numpy() > 0
        near = 255 * (1 - np.log1p(np.clip(depth.numpy(), 0, FAR_M)) / np.log1p(FAR_M))
        colors = cv2.applyColorMap(near.astype(np.uint8), cv2.COLORMAP_VIRIDIS)
        colors[~known] = 255
        gap = np.full((len(rgb), GAP, 3), 255)
        rows += [np.concatenate([rgb[..., ::-1], gap, colors], axis=1), np.full((GAP, 2 * rgb.shape[1] + GAP, 3), 255)]
    file = Path(__file__).parent / "images" / "panorama.png"
    file.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(file), np.concatenate(rows[:-1]).astype(np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"{file}: scenario {sample.meta.scenario}, frame {sample.meta.frame}, agents {', '.join(sample.meta.agents)}")


if __name__ == "__main__":
    main()
