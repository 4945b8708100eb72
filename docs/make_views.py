"""Draw the panorama and the mosaic of one car, to look at: panorama.png and mosaic.png in a folder.

python docs/make_views.py IMAGES METADATA FOLDER

IMAGES is what the names of the four images begin with (IMAGES_camera0.png ...), METADATA a YAML file of a car with the
same rig.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from coopmap.config.data import DataConfig
from coopmap.data.layouts import build_views
from coopmap.data.opv2v import read_agent, read_images
from coopmap.data.views import Record
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT


def main() -> None:
    """One picture per layout; prints the share of pixels that some camera sees."""
    images, metadata, folder = sys.argv[1], read_agent(Path(sys.argv[2])), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    size = metadata.rig.image_size
    decoded = read_images([Path(f"{images}_camera{number}.png") for number in OPV2V_CAMERA_OF_SLOT], size)
    record = Record(metadata, decoded, np.zeros((len(decoded), *size), np.float32))
    for layout in ("panorama", "mosaic"):
        (view,) = build_views(DataConfig(layout=layout), depth_is_dense=True)("0", record, None, None)
        rgb = np.where(view.non_ambiguous[..., None], view.image, 0)
        height, width = rgb.shape[:2]
        cv2.imwrite(str(folder / f"{layout}.png"), rgb[..., ::-1])
        print(f"{folder / layout}.png: {width} x {height}, {view.non_ambiguous.mean():.3f} covered")


if __name__ == "__main__":
    main()
