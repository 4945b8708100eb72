from dataclasses import replace

import numpy as np
import pytest
from pypcd4 import Encoding, PointCloud

from coopmap.data.opv2v import CorruptFrameError, MissingFileError, read_agent
from coopmap.data.opv2v.lidar import cull_hidden, drop_own_body, sample_spacing, see
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.geometry.targets import SeenPoints


def test_real_sweep_in_agent_axes(data_dir):
    points = read_sweep(data_dir / "real" / "4279_000069_head.pcd")
    assert points.shape == (24, 3)
    np.testing.assert_allclose(points[0], (-1.954882282e-05, -2.386561155, -68.34235382), rtol=1e-6)  # behind, above
    elevation = np.rad2deg(np.arcsin(-points[:, 1] / np.linalg.norm(points, axis=1)))
    np.testing.assert_allclose(elevation, 2.0, atol=0.03)  # the uppermost beam


def test_binary_sweep(tmp_path):
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    points[3] = np.nan
    PointCloud.from_xyz_points(points).save(tmp_path / "a.pcd", encoding=Encoding.BINARY)
    kept = np.delete(points, 3, axis=0)
    np.testing.assert_array_equal(read_sweep(tmp_path / "a.pcd"), np.stack([kept[:, 1], -kept[:, 2], kept[:, 0]], 1))


@pytest.mark.parametrize("encoding", Encoding)
def test_an_encoding_in_capital_letters(tmp_path, encoding):
    path = tmp_path / "000069.pcd"
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    PointCloud.from_xyz_points(points).save(path, encoding=encoding)
    expected = read_sweep(path)
    head, data, body = path.read_bytes().partition(f"DATA {encoding.value}".encode())
    path.write_bytes(head + data.upper() + body)
    assert len(expected) == 50
    np.testing.assert_array_equal(read_sweep(path), expected)


@pytest.mark.parametrize("viewpoint", ["0 0 1.9 1 0 0 0", "0 0 0 0.7071 0 0 0.7071", "0 0 0", "0 0 0 a 0 0 0"])
def test_a_viewpoint_elsewhere_is_refused(data_dir, tmp_path, viewpoint):
    path = tmp_path / "000069.pcd"
    text = (data_dir / "real" / "4279_000069_head.pcd").read_text()
    path.write_text(text.replace("VIEWPOINT 0 0 0 1 0 0 0", f"VIEWPOINT {viewpoint}"))
    with pytest.raises(CorruptFrameError, match=f"VIEWPOINT {viewpoint}, expected 0 0 0 1 0 0 0"):
        read_sweep(path)


@pytest.mark.parametrize("viewpoint", ["VIEWPOINT 0.0 0 -0 -1 0 0 0\n", "VIEWPOINT 0 0 0 0 0 0 0\n", ""])
def test_a_viewpoint_that_says_nothing(data_dir, tmp_path, viewpoint):
    path = tmp_path / "000069.pcd"
    text = (data_dir / "real" / "4279_000069_head.pcd").read_text()
    path.write_text(text.replace("VIEWPOINT 0 0 0 1 0 0 0\n", viewpoint))
    assert len(read_sweep(path)) == 24


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("ending", ["", "\n"])
def test_a_sweep_of_no_points(tmp_path, encoding, ending):
    path = tmp_path / "000069.pcd"
    header = "VERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\nWIDTH 0\nHEIGHT 1\n"
    path.write_text(f"{header}VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 0\nDATA {encoding}\n{ending}")
    points = read_sweep(path)
    assert points.shape == (0, 3)
    assert points.dtype == np.float32


def test_a_sweep_that_announces_no_points_and_holds_some(data_dir, tmp_path):
    path = tmp_path / "000069.pcd"
    text = (data_dir / "real" / "4279_000069_head.pcd").read_text()
    path.write_text(text.replace("WIDTH 24", "WIDTH 0").replace("POINTS 24", "POINTS 0"))
    with pytest.raises(CorruptFrameError, match="damaged: 24 of the 0 points"):
        read_sweep(path)


@pytest.mark.parametrize("kept", [0, 100, 300, 1200, -20, -61])  # in the header, in a line, after a line
def test_truncated_sweep_names_the_file(data_dir, tmp_path, kept):
    path = tmp_path / "000069.pcd"
    path.write_bytes((data_dir / "real" / "4279_000069_head.pcd").read_bytes()[:kept])
    with pytest.raises(CorruptFrameError, match=str(path)):
        read_sweep(path)


@pytest.mark.parametrize("ending", ["-3", "-3.2 1.5"])
def test_sweep_cut_within_a_line_tells_how_much_is_left(data_dir, tmp_path, ending):
    path = tmp_path / "000069.pcd"
    lines = (data_dir / "real" / "4279_000069_head.pcd").read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-4]) + ending)
    expected = rf"000069\.pcd: truncated: 20 of the 24 points .* {path.stat().st_size:,} bytes\)\. Copy or unpack"
    with pytest.raises(CorruptFrameError, match=expected):
        read_sweep(path)
    path.write_text("".join(lines)[:60])
    with pytest.raises(CorruptFrameError, match="truncated: it ends after 60 bytes, within its header"):
        read_sweep(path)


def test_sweep_cut_after_a_line_tells_how_much_is_left(data_dir, tmp_path):
    path = tmp_path / "000069.pcd"
    lines = (data_dir / "real" / "4279_000069_head.pcd").read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-4]))
    with pytest.raises(CorruptFrameError, match="truncated: 20 of the 24 points"):
        read_sweep(path)


def test_missing_sweep(tmp_path):
    with pytest.raises(MissingFileError, match=r"000069\.pcd: no such file"):
        read_sweep(tmp_path / "000069.pcd")


def test_nearest_point_of_a_pixel_wins(real_yaml):
    rig = read_agent(real_yaml).rig
    ray = np.array([0.1, 0.05, 1.0])  # front camera, 3 m ahead of the LiDAR and 0.9 m below
    points = ray * np.array([[30.0], [12.0], [20.0]]) + [0, 0.9, 3.0]
    depth = depth_maps(see(points.astype(np.float32), rig))
    column, row = int(400 + 33.5639852), int(300 + 16.7819926)
    assert np.argwhere(depth).tolist() == [[0, row, column]]
    assert depth[0, row, column] == pytest.approx(12 * np.linalg.norm(ray), rel=1e-5)


def test_point_to_the_left_is_seen_by_the_left_camera_alone(real_yaml):
    depth = depth_maps(see(np.array([[-10.0, 1.0, 0.0]], np.float32), read_agent(real_yaml).rig))
    assert np.unique(np.nonzero(depth)[0]).tolist() == [1]


def test_sample_spacing_is_that_of_the_sensor(sweep_street):
    # 0.354 degrees between columns, 0.429 between beams; a street hides the topmost beam's sky
    assert np.rad2deg(sample_spacing(sweep_street())) == pytest.approx(np.sqrt(0.354 * 0.429), rel=0.1)
    assert sample_spacing(np.zeros((0, 3))) == pytest.approx(np.pi)


def test_own_body_is_dropped():
    points = np.array([[0.5, 1.2, 2.8], [0.0, 0.5, -1.5], [1.5, 1.0, 0.0], [0.0, 1.9, 4.2], [0.0, -5.0, 0.0]])
    # hood, boot | beside the car, on the road ahead, a bridge above
    np.testing.assert_array_equal(drop_own_body(points), points[2:])


def depth_maps(seen: SeenPoints) -> np.ndarray:
    """Range of the point in each camera pixel, 0 where there is none."""
    maps = np.zeros((seen.num_cameras, *seen.image_size), np.float32)
    maps.reshape(seen.num_cameras, -1)[seen.camera, seen.pixel] = seen.ranges
    return maps


def visible_range(cast, rig, camera, row, column):
    """Farthest true range over the middle and the corners of a pixel."""
    k, agent_from_camera = rig.intrinsics[0], rig.agent_from_camera[camera]
    ranges = []
    for dx, dy in ((0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1)):
        ray = np.stack([(column + dx - k[0, 2]) / k[0, 0], (row + dy - k[1, 2]) / k[1, 1], np.ones(len(row))], axis=-1)
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        ranges.append(cast(agent_from_camera[:, :3, 3], np.einsum("nij,nj->ni", agent_from_camera[:, :3, :3], ray)))
    return np.max(ranges, axis=0)


def count(depth, cast, rig):
    """Number of points on visible and on hidden surfaces."""
    camera, row, column = np.nonzero(depth)
    hidden = depth[camera, row, column] > 1.1 * visible_range(cast, rig, camera, row, column) + 0.5
    return (~hidden).sum(), hidden.sum()


@pytest.mark.parametrize("merged", [False, True])
def test_points_hidden_from_the_camera_are_culled(real_yaml, cast_street, sweep_street, merged):
    rig, sweep = read_agent(real_yaml).rig, sweep_street()
    # Other cars, which have looked behind what is parked in front of this one
    others = [sweep_street(position) for position in ((0.0, 0.0, 40.0), (-3.5, 0.0, -25.0))]
    points = np.concatenate([sweep, *others]) if merged else sweep
    seen = see(drop_own_body(points), rig)
    sparse = depth_maps(seen)
    culled = depth_maps(cull_hidden(seen, rig.intrinsics[:, 0, 0], sample_spacing(sweep)))
    assert set(np.unique(culled)) <= set(np.unique(sparse))
    visible_before, hidden_before = count(sparse, cast_street, rig)
    visible_after, hidden_after = count(culled, cast_street, rig)
    assert hidden_before > 0.02 * visible_before  # there is something to cull
    assert hidden_after < 0.005 * visible_after
    assert visible_after > (0.95 if merged else 0.98) * visible_before


def test_each_camera_is_culled_by_its_own_focal_length(real_yaml, sweep_street):
    """Of cameras with other lenses nothing is lost that would not be lost if all had that lens."""
    rig, sweep = read_agent(real_yaml).rig, sweep_street()
    points, spacing = drop_own_body(sweep), sample_spacing(sweep)
    scale = np.array([1.0, 2.0, 0.5, 3.0])
    matrices = rig.intrinsics * np.stack([scale, scale, np.ones(4)], axis=-1)[:, :, None]
    matrices[:, :2, 2] = rig.intrinsics[:, :2, 2]

    def kept(focal: np.ndarray, seen: SeenPoints) -> list[set[int]]:
        culled = cull_hidden(seen, focal, spacing)
        return [set(culled.pixel[culled.camera == camera].tolist()) for camera in range(4)]

    seen = see(points, replace(rig, intrinsics=matrices))
    together = kept(matrices[:, 0, 0], seen)
    fronts = kept(np.full(4, matrices[0, 0, 0]), seen)
    for camera, focal in enumerate(matrices[:, 0, 0]):
        assert together[camera] == kept(np.full(4, focal), seen)[camera]
    assert together[1:] != fronts[1:]  # the front camera's would lose others


def test_open_road_is_not_culled(real_yaml):
    """A tilted plane seen at grazing angle: nearer ground lies below each point, never around it."""
    elevation, azimuth = np.meshgrid(np.deg2rad(np.linspace(-25, -1, 57)), np.arange(1016) * 2 * np.pi / 1016)
    direction = np.stack(
        [np.cos(elevation) * np.sin(azimuth), -np.sin(elevation), np.cos(elevation) * np.cos(azimuth)], axis=-1
    ).reshape(-1, 3)
    normal = np.array([np.sin(np.deg2rad(1.5)), 1.0, np.sin(np.deg2rad(0.5))])  # 1.5 degrees across, 0.5 along
    distance = 1.9 * normal[1] / np.maximum(direction @ normal, 1e-3)
    points = (direction * distance[:, None])[distance < 120].astype(np.float32)
    rig = read_agent(real_yaml).rig
    seen = see(drop_own_body(points), rig)
    assert np.count_nonzero(seen.ranges > 40) > 1000
    assert len(cull_hidden(seen, rig.intrinsics[:, 0, 0], sample_spacing(points)).points) == len(seen.points)
