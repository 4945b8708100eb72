"""Which maker of views a configuration asks for."""

from __future__ import annotations

from coopmap.config.data import DataConfig
from coopmap.data.camera_views import CameraViews
from coopmap.data.mosaic import MosaicViews
from coopmap.data.views import GroupedViews, PanoramaViews, WarpedViews


def build_views(config: DataConfig, depth_is_dense: bool) -> PanoramaViews | CameraViews | MosaicViews:
    """The maker of views of a layout."""
    if config.layout == "cameras":
        return CameraViews(config)
    if config.layout == "mosaic":
        return MosaicViews(config)
    kinds = {"panorama": PanoramaViews, "warped": WarpedViews, "grouped": GroupedViews}
    return kinds[config.layout](config, depth_is_dense)
