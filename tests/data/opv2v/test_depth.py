import cv2
import numpy as np
import pytest

from coopmap.data.opv2v import (
    CorruptFrameError,
    DatasetLayoutError,
    MetadataError,
    MissingFileError,
    SplitIndex,
    read_agent,
    select_depth_source,
)
from coopmap.data.opv2v.depth import z_to_range
from coopmap.geometry import pose_from_carla
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT

from .test_lidar import depth_maps

SHAPE = (60, 80)
FOCAL = 335.639852470912 / 10


@pytest.fixture
def frame(writer):
    """One agent in one frame, with a sweep of a single point 20 m ahead of the LiDAR, 0.9 m below it."""
    writer.agent("s", "641", "000069", points_ue=np.array([[20.0, 0.0, -0.9]]))
    index = SplitIndex.build(writer.root, "val")
    ref = index.frame(0)
    return index, ref, {"641": read_agent(index.yaml_path(ref, "641"))}


@pytest.fixture
def depth_folder(tmp_path):
    folder = tmp_path / "depth" / "validate" / "s" / "641"
    folder.mkdir(parents=True)
    return folder


def write_npy(folder, depths):
    """Depth of the cameras in slot order."""
    for camera, depth in zip(OPV2V_CAMERA_OF_SLOT, depths, strict=True):
        np.save(folder / f"000069_camera{camera}_depth.npy", depth)


def write_carla_png(folder, depths):
    for camera, depth in zip(OPV2V_CAMERA_OF_SLOT, depths, strict=True):
        code = np.rint(depth / 1000 * (256**3 - 1)).astype(np.int64)
        red, green, blue = code % 256, code // 256 % 256, code // 65536
        cv2.imwrite(str(folder / f"000069_depth{camera}.png"), np.stack([blue, green, red], -1).astype(np.uint8))


def test_z_to_range_of_the_real_camera(real_yaml):
    factor = z_to_range(read_agent(real_yaml).rig)
    assert factor.shape == (4, 600, 800)
    assert factor[:, 299:301, 399:401] == pytest.approx(1.0, abs=1e-5)
    assert factor[0, 300, 799] == pytest.approx(1.5546, abs=1e-4)  # middle of the right edge
    assert factor[0, 0, 0] == pytest.approx(1.7925, abs=1e-4)  # corner


def test_wall_in_z_depth_becomes_range(frame, depth_folder):
    index, ref, agents = frame
    write_npy(depth_folder, [np.full(SHAPE, 10.0 + slot, np.float32) for slot in range(4)])
    depth = select_depth_source(index, depth_folder.parents[2]).read(ref, agents)["641"]
    assert depth.shape == (4, *SHAPE)
    assert depth.dtype == np.float32
    corner_ray = np.array([(0.5 - 40) / FOCAL, (0.5 - 30) / FOCAL, 1.0])
    np.testing.assert_allclose(depth[:, 0, 0], np.arange(10, 14) * np.linalg.norm(corner_ray), rtol=1e-6)


def test_range_stays_range(frame, depth_folder):
    index, ref, agents = frame
    write_npy(depth_folder, [np.full(SHAPE, 10.0, np.float32)] * 4)
    depth = select_depth_source(index, depth_folder.parents[2], kind="ray").read(ref, agents)["641"]
    np.testing.assert_array_equal(depth, np.float32(10))


def test_sky_and_nonsense_are_unknown(frame, depth_folder):
    index, ref, agents = frame
    row = np.array([0.0, -1.0, np.nan, np.inf, 1000.0, 999.9999, 5.0, 250.0])
    write_npy(depth_folder, [np.tile(row.astype(np.float32), (60, 10))] * 4)
    root = depth_folder.parents[2]
    near = select_depth_source(index, root, kind="ray", max_depth_m=200).read(ref, agents)["641"]
    np.testing.assert_array_equal(near[0, 0, :8], [0, 0, 0, 0, 0, 0, 5, 0])
    all_known = select_depth_source(index, root, kind="ray", max_depth_m=5000).read(ref, agents)["641"]
    np.testing.assert_array_equal(all_known[0, 0, :8], [0, 0, 0, 0, 0, 0, 5, 250])


def test_carla_png(frame, depth_folder):
    index, ref, agents = frame
    z = np.full(SHAPE, 50.123)
    z[0] = 1000
    write_carla_png(depth_folder, [z] * 4)
    source = select_depth_source(index, depth_folder.parents[2])
    depth = source.read(ref, agents)["641"]
    assert source.is_dense
    assert "depth{camera}.png" in source.describe()
    np.testing.assert_allclose(depth[2, 1:], 50.123 * z_to_range(agents["641"].rig)[2, 1:], atol=2e-4)
    assert (depth[:, 0] == 0).all()


def test_npy_is_preferred_to_png_and_png_to_lidar(frame, depth_folder):
    index, _, _ = frame
    root = depth_folder.parents[2]
    assert "LiDAR" in select_depth_source(index).describe()
    write_carla_png(index.root / "validate" / "s" / "641", [np.full(SHAPE, 9.0)] * 4)
    assert ".png" in select_depth_source(index).describe()
    write_carla_png(depth_folder, [np.full(SHAPE, 9.0)] * 4)
    assert ".png" in select_depth_source(index, root).describe()
    write_npy(depth_folder, [np.full(SHAPE, 9.0)] * 4)
    assert ".npy" in select_depth_source(index, root).describe()
    assert "LiDAR" in select_depth_source(index, root, source="lidar").describe()


def test_lidar_point_lands_in_the_front_camera(frame):
    index, ref, agents = frame
    source = select_depth_source(index)
    depth = depth_maps(source.read(ref, agents)["641"])
    assert not source.is_dense
    # The front camera is 3 m ahead of the LiDAR and 0.9 m below: the point lies on its optical axis.
    assert np.argwhere(depth).tolist() == [[0, 30, 40]]
    assert depth[0, 30, 40] == pytest.approx(17.0, abs=1e-5)


def test_far_lidar_points_are_unknown(frame):
    index, ref, agents = frame
    assert not len(select_depth_source(index, max_depth_m=16).read(ref, agents)["641"].points)


def test_merged_sweeps_meet_in_one_place(writer):
    """Two cars face each other on a slope; each sees the same post, in its own frame."""
    here, there = (10.0, 5.0, 3.0, 2.0, 30.0, 4.0), (46.0, 24.0, 6.0, -1.0, -145.0, -3.0)
    post_world = np.array([28.0, 16.0, 4.0, 1.0])
    posts = [(np.linalg.inv(pose_from_carla(cords)) @ post_world)[None, :3] for cords in (here, there)]
    writer.agent("s", "1", "000001", here, posts[0] + [[0, 0, 50]])  # its own sweep misses the post
    writer.agent("s", "2", "000001", there, posts[1])
    index = SplitIndex.build(writer.root, "val")
    ref = index.frame(0)
    agents = {"1": read_agent(index.yaml_path(ref, "1"))}  # the other's metadata is read on demand
    assert not len(select_depth_source(index).read(ref, agents)["1"].points)
    depth = depth_maps(select_depth_source(index, merge_agents=True).read(ref, agents)["1"])
    camera_from_world = np.linalg.inv(agents["1"].pose @ agents["1"].rig.agent_from_camera[0])
    seen = camera_from_world @ [post_world[1], -post_world[2], post_world[0], 1.0]
    column, row = np.floor(FOCAL * seen[:2] / seen[2] + [40, 30]).astype(int)
    assert np.argwhere(depth).tolist() == [[0, row, column]]
    assert depth[0, row, column] == pytest.approx(np.linalg.norm(seen[:3]), abs=1e-4)


@pytest.mark.parametrize("suffix", [".pcd", ".yaml"])
def test_what_another_agent_lacks_costs_its_sweep_alone(writer, caplog, suffix):
    for agent, point in (("1", [20.0, 0.0, -0.9]), ("2", [30.0, 5.0, -0.9]), ("3", [40.0, -5.0, -0.9])):
        writer.agent("s", agent, "000001", points_ue=np.array([point]))
    index = SplitIndex.build(writer.root, "val")
    ref = index.frame(0)
    source = select_depth_source(index, merge_agents=True)
    agents = {agent: read_agent(index.yaml_path(ref, agent)) for agent in ref.agents}
    damaged = index.yaml_path(ref, "2").with_suffix(suffix)
    damaged.write_bytes(damaged.read_bytes()[:30])
    for _ in range(2):
        seen = source.read(ref, {"1": agents["1"]})
        assert np.unique(seen["1"].points[:, 2].round()).tolist() == [20.0, 40.0]
    assert caplog.text.count(f"left out of the merged sweeps of its tick: {damaged}") == 1
    if suffix == ".pcd":
        with pytest.raises(CorruptFrameError, match=str(damaged)):
            source.read(ref, {agent: agents[agent] for agent in ("1", "2")})


class TestErrors:
    def test_missing_depth_root(self, frame, tmp_path):
        with pytest.raises(DatasetLayoutError, match="nowhere: the depth root does not exist"):
            select_depth_source(frame[0], tmp_path / "nowhere")

    def test_depth_root_without_files_does_not_fall_back_to_lidar(self, frame, depth_folder):
        expected = (
            rf"{depth_folder}/000069_camera0_depth\.npy: no such depth file, nor {depth_folder}/000069_depth0\.png"
        )
        with pytest.raises(DatasetLayoutError, match=expected):
            select_depth_source(frame[0], depth_folder.parents[2])

    def test_no_depth_at_all(self, frame):
        index, ref, _ = frame
        index.lidar_path(ref, "641").unlink()
        with pytest.raises(DatasetLayoutError, match=r"000069_depth0\.png: no such .*000069\.pcd.*Unpack the .pcd"):
            select_depth_source(index)

    def test_npy_without_root(self, frame):
        with pytest.raises(ValueError, match=r"needs data\.depth_root"):
            select_depth_source(frame[0], source="npy")

    @pytest.mark.parametrize("key", ["source", "kind"])
    def test_unknown_choice(self, frame, key):
        with pytest.raises(ValueError, match=rf"data\.depth\.{key} must be one of .* not 'best'"):
            select_depth_source(frame[0], **{key: "best"})

    def test_one_camera_missing(self, frame, depth_folder):
        index, ref, agents = frame
        write_npy(depth_folder, [np.full(SHAPE, 9.0)] * 4)
        (depth_folder / "000069_camera3_depth.npy").unlink()
        with pytest.raises(MissingFileError, match=r"000069_camera3_depth\.npy: no such depth file"):
            select_depth_source(index, depth_folder.parents[2]).read(ref, agents)

    @pytest.mark.parametrize("kept", [0, 20, 1000])
    def test_truncated_npy(self, frame, depth_folder, kept):
        index, ref, agents = frame
        write_npy(depth_folder, [np.full(SHAPE, 9.0)] * 4)
        path = depth_folder / "000069_camera1_depth.npy"
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(CorruptFrameError, match=f"{path}: not a readable .npy file"):
            select_depth_source(index, depth_folder.parents[2]).read(ref, agents)

    def test_wrong_size(self, frame, depth_folder):
        index, ref, agents = frame
        write_npy(depth_folder, [np.full((30, 40), 9.0)] * 4)
        with pytest.raises(MetadataError, match=r"camera0_depth\.npy: the file is 30 x 40 .* is for 60 x 80"):
            select_depth_source(index, depth_folder.parents[2]).read(ref, agents)

    def test_integer_depth(self, frame, depth_folder):
        index, ref, agents = frame
        write_npy(depth_folder, [np.full(SHAPE, 900, np.uint16)] * 4)
        with pytest.raises(CorruptFrameError, match="holds uint16, expected meters as floats"):
            select_depth_source(index, depth_folder.parents[2]).read(ref, agents)

    def test_gray_png(self, frame, depth_folder):
        index, ref, agents = frame
        for camera in range(4):
            cv2.imwrite(str(depth_folder / f"000069_depth{camera}.png"), np.full(SHAPE, 7, np.uint8))
        with pytest.raises(CorruptFrameError, match=r"000069_depth0\.png: not CARLA-encoded depth"):
            select_depth_source(index, depth_folder.parents[2]).read(ref, agents)
