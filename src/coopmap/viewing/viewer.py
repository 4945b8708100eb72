"""The viewer: a slider of frames, what to show of them, and by which poses and colors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial.transform import Rotation

from coopmap.data.opv2v import DataError
from coopmap.geometry.se3_numpy import relative_pose, rotation_angle
from coopmap.report.palette import COLORS, GRAY
from coopmap.viz.scene import PRED, TRUE, Scene
from coopmap.viz.scene_cloud import Cloud, placed, predicted_clouds, thinned, true_clouds

ADDRESS = "127.0.0.1"
POSES = {"predicted": PRED, "true": TRUE}
COLORINGS = ("image", "agent", "error", "confidence")
PARTS = {
    "predicted points": True,
    "true points": False,
    "agents": True,
    "cameras": True,
    "boxes": True,
    "LiDAR": False,
}
"""What can be shown, and whether it is at first."""
CAMERA, LOOKS_AT = (0.0, -22.0, -32.0), (0.0, 0.0, 6.0)
"""At first: from behind and above the reference agent, which is the origin."""
POINT_M = 0.1
ERROR_LIMIT_M = 5.0
"""Errors of this size and more have the color of the end of the scale."""
ERROR_SCALE = np.array([[0, 114, 178], [225, 225, 225], [213, 94, 0]])
"""Too near is blue, too far vermillion."""
CONFIDENCE_SCALE = np.array([[253, 231, 37], [33, 145, 140], [68, 1, 84]])[::-1]
"""The ends and the middle of viridis: dark is unsure."""
EDGES = [(a, b) for a in range(8) for b in range(8) if a < b and (a ^ b).bit_count() == 1]
"""Of a box, between corners that differ along one axis."""


class FrameViewer:
    """Serves frames on the loopback interface until its ``server`` is stopped.

    Args:
        load: gives a frame.
        count: number of frames.
        first: to begin with.
        points: of a frame at most.
        port: to listen on.
    """

    def __init__(
        self, load: Callable[[int], Scene], count: int, first: int = 0, points: int = 250_000, port: int = 8080
    ):
        import viser

        self.load, self.count, self.limit = load, count, points
        self.server = viser.ViserServer(host=ADDRESS, port=port, label="coopmap", verbose=False)
        self.server.scene.set_up_direction("-y")
        self.server.initial_camera.position, self.server.initial_camera.look_at = CAMERA, LOOKS_AT
        self._lock = threading.Lock()  # callbacks come from several threads
        gui = self.server.gui
        self.frame: Any = gui.add_slider("frame", 0, max(count - 1, 1), 1, first, disabled=count < 2)
        self.title: Any = gui.add_text("sample", "", disabled=True)  # plain text: names are never markup
        self.poses: Any = gui.add_dropdown("poses", tuple(POSES))
        self.coloring: Any = gui.add_dropdown("color", COLORINGS)
        self.parts: dict[str, Any] = {name: gui.add_checkbox(name, shown) for name, shown in PARTS.items()}
        self.errors: Any = gui.add_text("error of the poses", "", multiline=True, disabled=True)
        self.dark: Any = gui.add_checkbox("dark page", False)
        self.dark.on_update(lambda _: gui.configure_theme(dark_mode=self.dark.value))
        for control in (self.frame, self.poses, self.coloring, *self.parts.values()):
            control.on_update(lambda _: self.show())
        self.show()

    def show(self) -> None:
        """Draw the chosen frame; one that cannot be read is an empty scene with the reason as its title."""
        with self._lock:
            try:
                scene, source = self.load(int(self.frame.value)), POSES[self.poses.value]
            except DataError as error:
                self._show_nothing(str(error))
                return
            source = source if source in scene.sources else PRED
            wanted = {name for name, part in self.parts.items() if part.value}
            with self.server.atomic():
                self.server.scene.reset()
                self.server.scene.set_up_direction("-y")
                self._draw_points(scene, source, wanted)
                if "agents" in wanted:
                    self._draw_agents(scene, source)
                if "cameras" in wanted:
                    self._draw_cameras(scene, source)
                if "boxes" in wanted and scene.boxes is not None:
                    corners = scene.boxes.corners[:, EDGES].reshape(-1, 2, 3)
                    self._lines("boxes", corners, rgb(GRAY))
            self.title.value = scene.title
            self.errors.value = pose_errors(scene)

    def _show_nothing(self, why: str) -> None:
        with self.server.atomic():
            self.server.scene.reset()
            self.server.scene.set_up_direction("-y")
            self.title.value, self.errors.value = why, ""

    def _draw_points(self, scene: Scene, source: str, wanted: set[str]) -> None:
        chosen = {
            "predicted points": (predicted_clouds, source, self.coloring.value),
            "true points": (true_clouds, TRUE, "image"),
        }
        for name, (clouds_of, poses, coloring) in chosen.items():
            if name in wanted and poses in scene.sources:
                clouds, _ = thinned(clouds_of(scene), self.limit)
                colors = [colors_of(scene, cloud, coloring) for cloud in clouds]
                self._cloud(name, placed(scene, clouds, poses), np.concatenate(colors) if colors else np.zeros((0, 3)))
        for number, agent in enumerate(scene.agents) if "LiDAR" in wanted else ():
            if agent.sweep is not None and source in agent.pose:
                pose = agent.pose[source]
                points = agent.sweep @ pose[:3, :3].T + pose[:3, 3]
                self._cloud(f"LiDAR/{number}", points, np.broadcast_to(agent_color(number), points.shape))

    def _cloud(self, name: str, points: Float[np.ndarray, "n 3"], colors: np.ndarray) -> None:
        known = np.isfinite(points).all(axis=1)  # a predicted pose may be no number
        points, colors = points[known].astype(np.float32), colors[known].astype(np.uint8)
        self.server.scene.add_point_cloud(f"/{name}", points, colors, point_size=POINT_M, precision="float32")

    def _draw_agents(self, scene: Scene, source: str) -> None:
        """Axes at the chosen pose, a name above, and a line to where the agent truly is."""
        for number, agent in enumerate(scene.agents):
            if source not in agent.pose:
                continue
            pose = agent.pose[source]
            self.server.scene.add_frame(
                f"/agents/{number}",
                axes_length=2.0,
                axes_radius=0.08,
                position=pose[:3, 3],
                wxyz=quaternion_wxyz(pose),
            )
            self.server.scene.add_label(f"/agents/{number}/name", agent.name, position=(0.0, -2.0, 0.0))
            if TRUE in agent.pose and source != TRUE:
                ends = np.stack([pose[:3, 3], agent.pose[TRUE][:3, 3]])[None]
                self._lines(f"errors/{number}", ends, agent_color(number))

    def _draw_cameras(self, scene: Scene, source: str) -> None:
        for number, agent in enumerate(scene.agents):
            if agent.frusta is None or source not in agent.pose:
                continue
            pose = agent.pose[source]
            points = agent.frusta @ pose[:3, :3].T + pose[:3, 3]
            edges = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1)]
            self._lines(f"cameras/{number}", points[:, edges].reshape(-1, 2, 3), agent_color(number))

    def _lines(self, name: str, ends: Float[np.ndarray, "n 2 3"], color: UInt8[np.ndarray, " 3"]) -> None:
        self.server.scene.add_line_segments(
            f"/{name}", ends.astype(np.float32), np.broadcast_to(color, ends.shape), thickness=0.04
        )


def colors_of(scene: Scene, cloud: Cloud, coloring: str) -> UInt8[np.ndarray, "n 3"]:
    """Colors of a cloud's points; the image's where what was asked for is unknown."""
    if coloring == "agent":
        return np.broadcast_to(agent_color(scene.views[cloud.view].agent), cloud.points.shape)
    values = cloud.error if coloring == "error" else cloud.confidence if coloring == "confidence" else None
    if values is None:
        return cloud.colors
    if coloring == "error":
        share, scale = np.clip(values / ERROR_LIMIT_M, -1, 1) / 2 + 0.5, ERROR_SCALE
    else:
        rank = values.argsort(kind="stable").argsort(kind="stable")  # confidences have no unit
        share, scale = rank / max(len(values) - 1, 1), CONFIDENCE_SCALE
    known = np.isfinite(share)
    colors = np.stack([np.interp(np.where(known, share, 0), np.linspace(0, 1, len(scale)), c) for c in scale.T], axis=1)
    colors[~known] = rgb(GRAY)
    return colors.astype(np.uint8)


def rgb(color: str) -> UInt8[np.ndarray, " 3"]:
    """Of ``#rrggbb``."""
    return np.frombuffer(bytes.fromhex(color.removeprefix("#")), np.uint8)


def agent_color(number: int) -> UInt8[np.ndarray, " 3"]:
    """The palette's colors, in order."""
    return rgb(COLORS[number % len(COLORS)])


def quaternion_wxyz(pose: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, " 4"]:
    """Unit quaternion of a pose, ``(w, x, y, z)`` as viser has it."""
    return Rotation.from_matrix(pose[:3, :3]).as_quat(canonical=True, scalar_first=True)


def pose_errors(scene: Scene) -> str:
    """A line per agent but the reference, where the truth is known."""
    lines = []
    reference = scene.agents[0].pose
    for agent in scene.agents[1:]:
        if {PRED, TRUE} <= set(agent.pose) & set(reference):
            found, true = (relative_pose(reference[source], agent.pose[source]) for source in (PRED, TRUE))
            meters = float(np.linalg.norm(found[:3, 3] - true[:3, 3]))
            degrees = float(np.rad2deg(rotation_angle(found[:3, :3].T @ true[:3, :3])))
            lines.append(f"{agent.name}: {meters:.2f} m, {degrees:.1f} deg")
    return "\n".join(lines)
