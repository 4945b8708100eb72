"""Shapes of cars. Origin on the ground under the middle of the car; x forward, y right, z up."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float

from coopmap.synthetic.materials import Material
from coopmap.synthetic.surface import Surface, box, frustum_sides, lathe, merge, quads, rectangle


@dataclass(frozen=True)
class CarModel:
    """Proportions of a car, meters; ``cabin`` gives the x of windshield foot, roof front, roof rear, rear foot."""

    name: str
    length: float
    width: float
    height: float
    waist: float
    cabin: tuple[float, float, float, float]

    @property
    def extent(self) -> tuple[float, float, float]:
        """Half sizes, as OPV2V stores them."""
        return self.length / 2, self.width / 2, self.height / 2

    @property
    def center(self) -> tuple[float, float, float]:
        """Middle of the bounding box."""
        return 0.0, 0.0, self.height / 2


SEDAN = CarModel("sedan", 4.6, 1.9, 1.48, 0.92, (0.95, 0.35, -1.05, -1.75))
MODELS = (
    SEDAN,
    CarModel("hatchback", 4.0, 1.8, 1.52, 0.95, (0.95, 0.35, -1.5, -1.9)),
    CarModel("estate", 4.8, 1.9, 1.7, 1.02, (1.1, 0.5, -2.0, -2.3)),
    CarModel("van", 5.0, 2.0, 2.2, 1.15, (2.1, 1.5, -2.3, -2.45)),
    CarModel("pickup", 5.0, 1.95, 1.75, 1.0, (0.9, 0.4, -0.5, -0.75)),
)


@cache
def _body(model: CarModel) -> tuple[Surface, Surface]:
    """Painted part (white) and the rest."""
    half, side = model.length / 2, model.width / 2
    x0, x1, x2, x3 = model.cabin
    lower = (-half, -side, half, side)
    waist = (-half + 0.08, -side + 0.06, half - 0.12, side - 0.06)
    foot, roof = (x3, -side + 0.08, x0, side - 0.08), (x2, -side + 0.25, x1, side - 0.25)
    white = (1.0, 1.0, 1.0)
    paint = merge(
        [
            box(lower, 0.28, 0.62, white),
            quads(frustum_sides(lower, waist, 0.62, model.waist), Material.PLAIN, white),
            quads(rectangle(waist, model.waist), Material.PLAIN, white),
            quads(rectangle(roof, model.height), Material.PLAIN, white),
        ]
    )
    windows = quads(frustum_sides(foot, roof, model.waist, model.height), Material.GLASS, white)
    tyre = lathe([(0.0, 0.11), (0.33, 0.11), (0.33, -0.11), (0.0, -0.11)], 8, (0.06, 0.06, 0.06))
    sideways = np.array([[1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, -1.0, 0, 0.33], [0, 0, 0, 1.0]])
    tyre = tyre.placed(sideways)
    wheels = [tyre.at(x, y, 0.0) for x in (0.3 * model.length, -0.3 * model.length) for y in (side - 0.1, -side + 0.1)]
    lights = [
        box((x, y, x + 0.03, y + 0.44), 0.48, 0.66, tint)
        for x, tint in ((half, (1.0, 0.98, 0.85)), (-half - 0.03, (0.85, 0.03, 0.03)))
        for y in (-side + 0.06, side - 0.5)
    ]
    return paint, merge([windows, *wheels, *lights])


def car_surface(model: CarModel, color: tuple[float, float, float]) -> Surface:
    """A car in its own frame."""
    paint, rest = _body(model)
    painted = Surface(paint.triangles, paint.uv, paint.material, paint.color * np.asarray(color))
    return merge([painted, rest])


def vivid(hue: float, value: float = 0.9) -> tuple[float, float, float]:
    """Saturated color; hue in turns."""
    return colorsys.hsv_to_rgb(hue % 1.0, 0.88, value)


def random_paint(rng: np.random.Generator) -> tuple[float, float, float]:
    """Ordinary car color: grays mostly, muted hues otherwise."""
    if rng.random() < 0.5:
        gray = float(rng.choice([0.12, 0.3, 0.5, 0.72, 0.88]))
        return gray, gray, gray
    return colorsys.hsv_to_rgb(rng.random(), 0.55, float(rng.uniform(0.3, 0.7)))


@dataclass(frozen=True, eq=False)
class Car:
    """A car at one moment.

    Attributes:
        id: number unique within its scenario.
        model: shape.
        color: paint.
        pose_ue: ``T_world_car``, CARLA axes.
        speed_kmh: speed.
    """

    id: int
    model: CarModel
    color: tuple[float, float, float]
    pose_ue: Float[np.ndarray, "4 4"]
    speed_kmh: float

    def surface(self) -> Surface:
        """The car at its pose."""
        return car_surface(self.model, self.color).placed(self.pose_ue)
