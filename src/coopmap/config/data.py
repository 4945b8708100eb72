"""Configuration of the data: where it lies, how a panorama is made, how batches are drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

from coopmap.config.checks import require, require_choice
from coopmap.config.sampling import SamplingConfig
from coopmap.config.synth import TownConfig

PROJECTIONS = ("equirect", "cylinder")
SURFACES = ("bowl", "sphere", "infinite")
GEOMETRIES = ("content", "central")
LAYOUTS = ("panorama", "cameras", "grouped", "warped", "mosaic")
DEPTH_SOURCES = ("auto", "npy", "png", "gray", "lidar")
DEPTH_KINDS = ("z", "ray")


@dataclass
class PanoramaConfig:
    """One agent's 360-degree panorama (docs/conventions.md).

    Attributes:
        height: pixels, a multiple of the model's patch size.
        width: likewise; ``width / 360 == height / v_fov_deg`` makes pixels square in angle.
        v_fov_deg: vertical field of view.
        elevation_center_deg: elevation of the middle row.
        projection: rows linear in elevation (``equirect``) or in its tangent (``cylinder``).
        surface: proxy surface that rays are cut with before projection into the cameras.
        radius_m: radius of the sphere, or of the sphere that closes the bowl.
        feather_deg: width of the color blend between two cameras; geometry is never blended.
        geometry: ``content`` (the point a pixel shows) or ``central`` (what a camera at the center would see).
        densify_px: with LiDAR and ``content``, also give depth to pixels among points that lie on one plane, from those
            at most this many pixels away (docs/data.md); 0 = measured points only.
        legacy_crop: use only the part of each image that survives a crop to the panorama's aspect ratio. A defect of
            earlier systems, kept for comparison.
    """

    height: int = 252
    width: int = 1008
    v_fov_deg: float = 90.0
    elevation_center_deg: float = 0.0
    projection: str = "equirect"
    surface: str = "bowl"
    radius_m: float = 30.0
    feather_deg: float = 3.0
    geometry: str = "content"
    densify_px: int = 0
    legacy_crop: bool = False

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            size = getattr(self, name)
            require(size > 0, f"data.panorama.{name}", size, "a positive number of pixels")
        top = self.elevation_center_deg + self.v_fov_deg / 2
        bottom = self.elevation_center_deg - self.v_fov_deg / 2
        limit = 90.0 if self.projection == "equirect" else 89.0
        fits = self.v_fov_deg > 0 and -limit <= bottom and top <= limit
        require(fits, "data.panorama.v_fov_deg", self.v_fov_deg, f"rows within +-{limit:g} degrees of elevation")
        require(self.radius_m > 0, "data.panorama.radius_m", self.radius_m, "a positive radius")
        require(self.feather_deg >= 0, "data.panorama.feather_deg", self.feather_deg, "at least 0")
        require(0 <= self.densify_px <= 8, "data.panorama.densify_px", self.densify_px, "0 to 8 pixels")
        require(
            self.densify_px == 0 or self.geometry == "content",
            "data.panorama.densify_px",
            self.densify_px,
            f"0 with data.panorama.geometry={self.geometry}",
        )
        require_choice("data.panorama.projection", self.projection, PROJECTIONS)
        require_choice("data.panorama.surface", self.surface, SURFACES)
        require_choice("data.panorama.geometry", self.geometry, GEOMETRIES)


@dataclass
class CamerasConfig:
    """Single camera images, for the layouts that keep the cameras of a car apart.

    Attributes:
        height, width: size they are resized to, multiples of the model's patch size. At the default, 28 x 21 patches
            over some 100 degrees have about the angular resolution of the default panorama.
    """

    height: int = 294
    width: int = 392

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            size = getattr(self, name)
            require(size > 0, f"data.cameras.{name}", size, "a positive number of pixels")


@dataclass
class MosaicConfig:
    """The camera images of an agent side by side, unwarped (``data.layout=mosaic``; docs/mosaic.md).

    Attributes:
        height, width: size that each camera image is resized to, multiples of the model's patch size. The default keeps
            the 4 : 3 of OPV2V's images; four of 20 x 15 patches are 1,200 tokens, where the default panorama has 1,296,
            and a camera's 100 degrees get the panorama's 2.8 pixels per degree on average.
    """

    height: int = 210
    width: int = 280

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            size = getattr(self, name)
            require(size > 0, f"data.mosaic.{name}", size, "a positive number of pixels")


@dataclass
class DepthConfig:
    """Where ground-truth depth comes from.

    Attributes:
        source: ``npy`` (dense, in ``data.depth_root``), ``png`` (CARLA-encoded), ``gray`` (8-bit gray PNG in meters, as
            OPV2V-H has), ``lidar`` (the tick's sweep), or ``auto``: the first of these but gray that the data has.
        kind: what the ``.npy`` files hold: ``z`` (along the optical axis) or ``ray`` (range).
        max_m: farther depths count as unknown.
        merge_agents: splat the sweeps of all agents of the tick, not only the view's own.
    """

    source: str = "auto"
    kind: str = "z"
    max_m: float = 200.0
    merge_agents: bool = False

    def __post_init__(self) -> None:
        require_choice("data.depth.source", self.source, DEPTH_SOURCES)
        require_choice("data.depth.kind", self.kind, DEPTH_KINDS)
        require(self.max_m > 0, "data.depth.max_m", self.max_m, "a positive distance")


@dataclass
class AugmentationConfig:
    """Training-time augmentation; images only, except yaw roll and tilt, which turn the pose as well.

    Attributes:
        brightness, contrast, saturation: largest relative change.
        hue_deg: largest turn of the hue.
        exposure: largest relative difference in gain between the cameras of one car.
        grayscale_prob: probability of a gray panorama.
        blur_prob: probability of a Gaussian blur.
        yaw_roll: shift the panorama circularly by a random angle and turn the view's pose to match; of a mosaic, turn
            rays and pose.
        tilt_deg: largest random pitch and roll of the frame that the panorama is made in; the view's pose is turned to
            match. Each panorama is then warped with a pattern of its own; of a mosaic rays and pose are turned.
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue_deg: float = 18.0
    exposure: float = 0.15
    grayscale_prob: float = 0.05
    blur_prob: float = 0.05
    yaw_roll: bool = True
    tilt_deg: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation", "exposure", "grayscale_prob", "blur_prob"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"data.augmentation.{name}", value, "between 0 and 1")
        require(0 <= self.hue_deg <= 180, "data.augmentation.hue_deg", self.hue_deg, "between 0 and 180")
        require(0 <= self.tilt_deg <= 45, "data.augmentation.tilt_deg", self.tilt_deg, "between 0 and 45")


SPLITS = ("train", "val", "test", "test_culvercity")


@dataclass
class DataConfig:
    """An OPV2V-layout dataset and how batches are drawn from it.

    Attributes:
        root: folder with ``train``, ``validate``, ``test``.
        depth_root: folder with dense depth in the same layout, or null.
        layout: what a view is: ``panorama`` (an agent's cameras stitched), ``cameras`` (each camera a view, the 4n
            baseline), ``grouped`` (an agent's camera images, to be fused by the model on the panorama's patches),
            ``warped`` (the same, each warped onto the panorama) or ``mosaic`` (an agent's camera images side by side).
        town: when set and ``root`` is missing, this synthetic town is rendered there first.
        is_synthetic: dense depth is rendered, and so exact, which upstream's loss trusts more; LiDAR sweeps are always
            taken for measured.
        include_rsu: use road-side units (negative agent ids) as agents.
        splits: folder of a split below ``root``, where it is none of the usual, such as ``data.splits.val=val``.
        exclude: file that lists agents in frames to leave out, one ``SPLIT/SCENARIO/AGENT/FRAME`` a line, as
            ``coopmap check fix_list=FILE`` writes it.
        communication_range_m: agents farther from the reference agent are not heard.
        min_agents, max_agents: agents per training sample; drawn anew for each step, the same on every rank.
        neighbor_ticks: further views of each agent: so many of the ticks next to the sample's, the nearest first,
            earlier before later. Ends of a scenario take from the other side; agents with fewer ticks are left out.
        max_views_per_gpu: a batch holds ``max_views_per_gpu // agents`` samples, in every layout.
        steps_per_epoch: optimizer steps per epoch, whatever the number of GPUs and ``trainer.accumulate_grad_batches``.
        max_val_frames: validate on at most this many frames, evenly spread over the split; null = all.
        fused_patch_px: side of the panorama's patches whose places in the cameras are told (``layout=grouped``); the
            model's patches.
        num_workers: loader processes per rank.
        keep_in_memory: each loader process keeps the files that it has decoded; for datasets of a gigabyte or so.
        bad_frame_budget: share of a split's frames that may be unreadable (one in small splits, unless it is 0); each
            is reported, more end the run.
        cache_dir: panorama warps and the table of poses are kept here; null = in memory only.
        cache_root: folder that ``coopmap cache`` has filled with views ready to train on; null = make them from files.
        vehicle_masks: also in training, read the boxes of all vehicles (most of a metadata file) to tell which pixels
            show a moving vehicle or the car's own body; loss weights ask for it. Validation always does.
    """

    root: str = ""
    depth_root: str | None = None
    layout: str = "panorama"
    town: TownConfig | None = None
    is_synthetic: bool = True
    include_rsu: bool = False
    splits: dict[str, str] = field(default_factory=dict)
    exclude: str | None = None
    communication_range_m: float = 70.0
    min_agents: int = 2
    max_agents: int = 4
    neighbor_ticks: int = 0
    max_views_per_gpu: int = 8
    steps_per_epoch: int = 5000
    max_val_frames: int | None = None
    fused_patch_px: int = 14
    num_workers: int = 4
    keep_in_memory: bool = False
    bad_frame_budget: float = 0.01
    cache_dir: str | None = None
    cache_root: str | None = None
    vehicle_masks: bool = False
    panorama: PanoramaConfig = field(default_factory=PanoramaConfig)
    cameras: CamerasConfig = field(default_factory=CamerasConfig)
    mosaic: MosaicConfig = field(default_factory=MosaicConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        require_choice("data.layout", self.layout, LAYOUTS)
        require(
            self.layout != "mosaic" or self.panorama.geometry == "content",
            "data.panorama.geometry",
            self.panorama.geometry,
            "content with data.layout=mosaic: seen from the center, a pixel has no direction but that of what it shows",
        )
        require(
            self.panorama.densify_px == 0 or self.layout not in ("cameras", "mosaic"),
            "data.panorama.densify_px",
            self.panorama.densify_px,
            f"0 with data.layout={self.layout}, which has no panorama",
        )
        for split, folder in self.splits.items():
            require_choice("data.splits", split, SPLITS)
            is_below = bool(folder) and not folder.startswith(("/", "~")) and ".." not in folder.split("/")
            require(is_below, f"data.splits.{split}", folder, "a folder below data.root")
        require(self.min_agents >= 1, "data.min_agents", self.min_agents, "at least 1")
        least = f"at least data.min_agents={self.min_agents}"
        require(self.max_agents >= self.min_agents, "data.max_agents", self.max_agents, least)
        require(
            self.max_views_per_gpu >= self.max_agents,
            "data.max_views_per_gpu",
            self.max_views_per_gpu,
            f"room for one sample of data.max_agents={self.max_agents} views",
        )
        require(self.steps_per_epoch >= 1, "data.steps_per_epoch", self.steps_per_epoch, "at least 1")
        limit = self.max_val_frames
        require(limit is None or limit >= 1, "data.max_val_frames", limit, "at least 1, or null: all")
        require(self.fused_patch_px >= 1, "data.fused_patch_px", self.fused_patch_px, "a number of pixels")
        require(self.num_workers >= 0, "data.num_workers", self.num_workers, "at least 0")
        require(0 <= self.bad_frame_budget < 1, "data.bad_frame_budget", self.bad_frame_budget, "in [0, 1)")
        require(self.communication_range_m > 0, "data.communication_range_m", self.communication_range_m, "positive")
        require(self.neighbor_ticks >= 0, "data.neighbor_ticks", self.neighbor_ticks, "at least 0")
        require(
            self.neighbor_ticks == 0 or self.layout != "cameras",
            "data.neighbor_ticks",
            self.neighbor_ticks,
            "0 with data.layout=cameras: between ticks a car has moved, and the poses of its cameras in it, which tie "
            "its views together, do not hold; panoramas, mosaics and fused cameras have further ticks",
        )
        self._check_sampling()

    @property
    def agent_frequencies(self) -> dict[int, float]:
        """Relative frequency of each number of agents that training draws, where its frames have so many; ascending."""
        given = self.sampling.agents or dict.fromkeys(range(self.min_agents, self.max_agents + 1), 1.0)
        return dict(sorted(given.items()))

    def _check_sampling(self) -> None:
        numbers, distances = self.sampling.agents, self.sampling.curriculum.distance_m or []
        require(
            all(self.min_agents <= number <= self.max_agents for number in numbers),
            "data.sampling.agents",
            dict(numbers),
            f"numbers from data.min_agents={self.min_agents} to data.max_agents={self.max_agents}",
        )
        require(
            max(distances, default=0.0) <= self.communication_range_m,
            "data.sampling.curriculum.distance_m",
            distances,
            f"at most data.communication_range_m={self.communication_range_m:g}",
        )
