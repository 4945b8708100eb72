"""The viewer starts, and what a browser would fetch from it is the frame."""

import http.client
from collections.abc import Iterator

import numpy as np
import pytest

from coopmap.data.opv2v import FrameError
from coopmap.geometry import pose_from_carla
from coopmap.geometry.carla import pose_cv_from_ue
from coopmap.viewing.viewer import FrameViewer, colors_of, pose_errors
from coopmap.viz.scene import PRED, TRUE, Scene, SceneAgent, SceneView
from coopmap.viz.scene_cloud import Cloud

pytest.importorskip("viser")
FREE_PORT = 18080
ZSTD = b"\x28\xb5\x2f\xfd"
"""What a compressed frame begins with."""
ODD = "<script>alert(1)</script> \"7\" 'ä'"


def pose_at(x: float, yaw: float = 0.0) -> np.ndarray:
    return pose_cv_from_ue(pose_from_carla([x, 0, 0, 0, yaw, 0]))


def scene(number: int) -> Scene:
    """Two agents that see a few points each, 3 m and 10 degrees off where they are; the third is damaged."""
    if number == 2:
        raise FrameError("town/000002", "a damaged image")
    rng = np.random.default_rng(number)
    poses = [{PRED: pose_at(0), TRUE: pose_at(0)}, {PRED: pose_at(20.0, 10.0), TRUE: pose_at(23.0)}]
    views = []
    for agent, pose in enumerate(poses):
        rays = rng.normal(size=(2, 3, 3)).astype(np.float32)
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        depth = np.full((2, 3), 5.0 + number, np.float32)
        image = rng.integers(0, 255, (2, 3, 3), dtype=np.uint8)
        kept = np.ones((2, 3), bool)
        views.append(
            SceneView(agent, "", pose, image, rays, depth, kept, kept, depth, true_rays=rays, true_depth=depth - 1)
        )
    agents = [SceneAgent(name, pose) for name, pose in zip((ODD, "12"), poses, strict=True)]
    return Scene(f"town <b>{number}</b>", agents, views)


@pytest.fixture(scope="module")
def viewer() -> Iterator[FrameViewer]:
    started = FrameViewer(scene, 3, port=FREE_PORT)
    yield started
    started.server.stop()


def fetched(viewer: FrameViewer) -> bytes:
    """What a client receives first, as one string of bytes."""
    import viser
    from websockets.sync.client import connect
    from zstandard import ZstdDecompressor

    address = f"ws://127.0.0.1:{viewer.server.get_port()}"
    received = b""
    with connect(address, subprotocols=[f"viser-v{viser.__version__}"], max_size=None, open_timeout=60) as socket:
        while True:
            try:
                message = socket.recv(timeout=3 if received else 60)
            except TimeoutError:
                return received
            assert isinstance(message, bytes)
            if (begin := message.find(ZSTD)) >= 0:  # the messages; arrays follow as they are
                received += ZstdDecompressor().decompressobj().decompress(message[begin:])
            received += message


def test_it_serves_its_page_and_the_points_of_the_frame_on_this_machine_alone(viewer: FrameViewer) -> None:
    assert viewer.server.get_host() == "127.0.0.1"
    connection = http.client.HTTPConnection("127.0.0.1", viewer.server.get_port(), timeout=60)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert answer.status == 200
    assert b"<html" in answer.read().lower()
    viewer.frame.value = 1
    viewer.show()
    shown = scene(1)
    points = np.concatenate(
        [
            (view.rays * view.depth[..., None]).reshape(-1, 3) @ view.pose[PRED][:3, :3].T + view.pose[PRED][:3, 3]
            for view in shown.views
        ]
    ).astype(np.float32)
    received = fetched(viewer)
    found = [np.frombuffer(received[i : i + 12], np.float32) for i in range(len(received) - 12)]
    places = np.array([place for place in found if np.isfinite(place).all() and np.abs(place).max() < 1e3])
    for point in points:
        assert np.abs(places - point).max(axis=1).min() < 1e-4
    assert b"town <b>1</b>" in received  # a value of a text field, which is no markup
    assert ODD.encode() in received


def test_toggles_and_poses_change_what_is_shown(viewer: FrameViewer) -> None:
    scene_api = viewer.server.scene

    def names() -> set[str]:
        return {name for name in scene_api._handle_from_node_name if name not in ("", "/WorldAxes")}

    viewer.frame.value = 0
    viewer.show()
    assert "/predicted points" in names()
    assert "/true points" not in names()
    assert {"/agents/0", "/agents/1", "/errors/1"} <= names()
    viewer.parts["true points"].value = True
    viewer.parts["predicted points"].value = False
    viewer.poses.value = "true"
    viewer.show()
    assert "/true points" in names()
    assert "/predicted points" not in names()
    assert "/errors/1" not in names()
    position = scene_api._handle_from_node_name["/agents/1"].position
    np.testing.assert_allclose(position, scene(0).agents[1].pose[TRUE][:3, 3], atol=1e-6)


def test_a_frame_that_cannot_be_read_shows_why_and_nothing_else(viewer: FrameViewer) -> None:
    viewer.frame.value = 0
    viewer.show()
    viewer.frame.value = 2
    viewer.show()
    assert "a damaged image" in viewer.title.value
    assert viewer.errors.value == ""
    assert set(viewer.server.scene._handle_from_node_name) <= {"", "/WorldAxes"}
    viewer.frame.value = 1
    viewer.show()
    assert viewer.title.value == scene(1).title


def test_the_first_sight_is_from_behind_and_above_and_the_page_can_be_dark(viewer: FrameViewer) -> None:
    camera = viewer.server.initial_camera
    right, down, ahead = np.subtract(camera.look_at, camera.position)
    assert right == 0
    assert down > 10
    assert ahead > 10
    viewer.dark.value = True
    assert b"dark_mode\xc3" in fetched(viewer)  # true, in MessagePack
    viewer.dark.value = False


def test_errors_of_poses_are_told() -> None:
    assert pose_errors(scene(0)) == "12: 3.00 m, 10.0 deg"


def test_colors_by_error_and_confidence() -> None:
    shown = scene(0)
    points = np.zeros((3, 3), np.float32)
    cloud = Cloud(1, points, np.full((3, 3), 7, np.uint8), np.array([-9, 0, np.nan], np.float32), np.array([3.0, 1, 2]))
    assert colors_of(shown, cloud, "image").tolist() == [[7, 7, 7]] * 3
    assert colors_of(shown, cloud, "agent").tolist() == [[0xD5, 0x5E, 0x00]] * 3
    assert colors_of(shown, cloud, "error").tolist() == [[0, 114, 178], [225, 225, 225], [0x80, 0x88, 0x90]]
    assert colors_of(shown, cloud, "confidence").tolist() == [[253, 231, 37], [68, 1, 84], [33, 145, 140]]
