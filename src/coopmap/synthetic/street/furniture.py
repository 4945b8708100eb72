"""Plants and street furniture. x runs along the road, y away from it, z up; the ground is at z = 0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from coopmap.synthetic.buildings import Color
from coopmap.synthetic.materials import Material
from coopmap.synthetic.street import facades
from coopmap.synthetic.street.houses import FOOT_M, paint
from coopmap.synthetic.surface import Surface, box, frustum_sides, lathe, merge, quads, rectangle


def tree(rng: np.random.Generator, hue: float, largest_m: float = 12.0) -> Surface:
    """Round, pointed, slim or bare tree."""
    height = float(rng.uniform(3.5, largest_m))
    bark = paint(rng, 0.08, (0.1, 0.5), (0.15, 0.45))
    leaves = paint(rng, hue, (0.25, 0.85), (0.2, 0.65))
    trunk = lathe([(0.1 * height**0.5, 0.6 * height), (0.13 * height**0.5, -FOOT_M)], 5, bark)
    kind, radius = rng.integers(5), height * float(rng.uniform(0.16, 0.32))
    if kind == 0:
        return merge(
            [
                trunk,
                lathe(
                    [(0.0, height), (radius, 0.22 * height), (0.1, 0.2 * height)], 7, leaves, Material.LEAVES, (3, 2)
                ),
            ]
        )
    if kind == 1:
        return merge([trunk, _blob(0.0, 0.0, 0.55 * height, 0.12 * height, 0.45 * height, leaves)])
    blobs = [_blob(0.0, 0.0, 0.68 * height, radius, 0.32 * height, leaves)]
    for _ in range(int(rng.integers(0, 3))):
        x, y = rng.normal(0, 0.6 * radius, 2)
        blobs.append(_blob(x, y, rng.uniform(0.5, 0.75) * height, 0.7 * radius, 0.2 * height, leaves))
    return merge([trunk, *blobs])


def _blob(x: float, y: float, z: float, radius: float, half_height: float, color: Color) -> Surface:
    profile = [(radius * np.cos(t), half_height * np.sin(t)) for t in np.linspace(np.pi / 2, -np.pi / 2, 6)]
    return lathe(profile, 7, color, Material.LEAVES, (3, 2)).at(x, y, z)


def _bush(rng: np.random.Generator) -> Surface:
    size = rng.uniform(0.4, 1.3)
    return _blob(0.0, 0.5, 0.4 * size, size, size * rng.uniform(0.6, 1.1), paint(rng, 0.27, (0.3, 0.8), (0.2, 0.6)))


def _hedge(rng: np.random.Generator) -> Surface:
    half, height = rng.uniform(1.5, 7), rng.uniform(0.7, 2.0)
    color = paint(rng, 0.28, (0.3, 0.8), (0.2, 0.55))
    return _slab(half, rng.uniform(0.5, 1.0), height, color, facades.HEDGE, 1.5)


def _fence(rng: np.random.Generator) -> Surface:
    color = paint(rng, rng.choice([0.08, 0.08, rng.random()]), (0.0, 0.6), (0.25, 0.95))
    return _slab(rng.uniform(2.5, 9), 0.1, rng.uniform(0.8, 2.1), color, facades.FENCE, 1.5)


def _slab(half: float, thick: float, height: float, color: Color, tile: int, tile_m: float) -> Surface:
    rect = (-half, 0.0, half, thick)
    sides = frustum_sides(rect, rect, -0.5, height)
    width = np.linalg.norm(sides[:, 1] - sides[:, 0], axis=-1)
    tiles = np.stack([width / tile_m, np.full(4, 1.0)], axis=-1)
    return merge(
        [quads(sides, tile, color, tiles), quads(rectangle(rect, height), tile, color, (2 * half / tile_m, 1.0))]
    )


def _noise_wall(rng: np.random.Generator) -> Surface:
    color = paint(rng, rng.random(), (0.0, 0.4), (0.35, 0.8))
    return _slab(rng.uniform(6, 16), 0.3, rng.uniform(2.2, 4.5), color, facades.CONCRETE, 3.0)


def _barrier(rng: np.random.Generator) -> Surface:
    color = (0.75, 0.74, 0.7) if rng.random() < 0.6 else paint(rng, 0.03, (0.6, 0.9), (0.6, 0.95))
    return _slab(rng.uniform(1.0, 4), 0.5, 0.85, color, facades.CONCRETE, 2.0)


def _guardrail(rng: np.random.Generator) -> Surface:
    half = rng.uniform(4, 12)
    rail = box((-half, 0.0, half, 0.12), 0.45, 0.8, (0.66, 0.68, 0.7))
    posts = [box((x - 0.06, 0.12, x + 0.06, 0.24), -0.5, 0.75, (0.45, 0.45, 0.45)) for x in np.arange(-half, half, 3.0)]
    return merge([rail, *posts])


def _container(rng: np.random.Generator) -> Surface:
    length, parts = rng.choice([6.1, 12.2]), []
    for level in range(int(rng.integers(1, 4))):
        color = paint(rng, rng.random(), (0.4, 0.9), (0.25, 0.8))
        rect = (-length / 2, 0.8, length / 2, 3.25)
        z = 2.6 * level
        sides = frustum_sides(rect, rect, z, z + 2.55)
        parts.append(quads(sides, facades.CORRUGATED, color, np.array([[1, 1], [length / 2.5, 1]] * 2)))
        parts.append(quads(rectangle(rect, z + 2.55), facades.CORRUGATED, color, (length / 2.5, 1.0)))
    return merge(parts).at(0.0, 0.0, 0.0, float(rng.normal(0, 4)))


def _tank(rng: np.random.Generator) -> Surface:
    radius, height = rng.uniform(1.2, 4.0), rng.uniform(4, 14)
    color = paint(rng, rng.random(), (0.0, 0.4), (0.5, 0.95))
    return lathe(
        [(0.0, height + 0.3 * radius), (radius, height), (radius, -FOOT_M)], 16, color, facades.CONCRETE, (6, 4)
    ).at(0.0, radius + 1.0, 0.0)


def _pallet(rng: np.random.Generator) -> Surface:
    parts = []
    for _ in range(int(rng.integers(1, 5))):
        x, y, size, height = rng.uniform(-2, 2), rng.uniform(0.5, 3), rng.uniform(0.4, 0.8), rng.uniform(0.3, 2.0)
        parts.append(
            box(
                (x - size, y - size, x + size, y + size), -0.3, height, paint(rng, rng.random(), (0.1, 0.7), (0.3, 0.8))
            )
        )
    return merge(parts)


def _sign(rng: np.random.Generator) -> Surface:
    post = lathe([(0.05, 2.6), (0.05, -FOOT_M)], 5, (0.55, 0.55, 0.55))
    half, low = rng.uniform(0.28, 0.6), rng.uniform(1.8, 2.3)
    rect = (-half, -0.05, half, 0.0)
    tile = facades.PICTURE + int(rng.integers(facades.PICTURES))
    board = quads(frustum_sides(rect, rect, low, low + rng.uniform(0.5, 1.2)), tile, (1.0, 1.0, 1.0))
    return merge([post, board]).at(0.0, 0.3, 0.0, float(rng.choice([0.0, 90.0, rng.uniform(0, 180)])))


def _billboard(rng: np.random.Generator) -> Surface:
    half, low = rng.uniform(1.5, 4), rng.uniform(1.5, 4.5)
    rect = (-half, -0.15, half, 0.15)
    tile = facades.PICTURE + int(rng.integers(facades.PICTURES))
    board = quads(frustum_sides(rect, rect, low, low + rng.uniform(1.5, 3.2)), tile, (1.0, 1.0, 1.0))
    posts = [
        lathe([(0.14, low), (0.14, -FOOT_M)], 6, (0.4, 0.4, 0.42)).at(x, 0.0, 0.0) for x in (-0.7 * half, 0.7 * half)
    ]
    return merge([board, *posts]).at(0.0, 1.5, 0.0, float(rng.uniform(0, 180)))


def _gantry(rng: np.random.Generator) -> Surface:
    """Sign on an arm over the lanes."""
    height, arm = 6.2, rng.uniform(5, 9)
    tile = facades.PICTURE + int(rng.integers(facades.PICTURES))
    rect = (-0.15, -arm, 0.15, -arm + rng.uniform(3, 5))
    return merge(
        [
            lathe([(0.16, height), (0.2, -FOOT_M)], 6, (0.5, 0.5, 0.52)),
            box((-0.1, -arm, 0.1, 0.0), height - 0.3, height, (0.5, 0.5, 0.52)),
            quads(frustum_sides(rect, rect, height - 1.0, height + 1.2), tile, (1.0, 1.0, 1.0)),
        ]
    ).at(0.0, 0.6, 0.0)


def _kiosk(rng: np.random.Generator) -> Surface:
    half, depth, height = rng.uniform(0.8, 2), rng.uniform(1.2, 2.4), rng.uniform(2.2, 2.8)
    rect = (-half, 0.2, half, 0.2 + depth)
    tile = facades.PICTURE + int(rng.integers(facades.PICTURES))
    color = paint(rng, rng.random(), (0.2, 0.9), (0.3, 0.9))
    roof = box((-half - 0.2, 0.0, half + 0.2, 0.4 + depth), height, height + 0.2, color)
    return merge([quads(frustum_sides(rect, rect, -0.5, height), tile, color), roof])


def _awning(rng: np.random.Generator) -> Surface:
    half, out, high = rng.uniform(1, 2.5), rng.uniform(0.6, 1.4), rng.uniform(2.3, 2.9)
    cloth = np.array(
        [[[half, 0.6 + out, high + 0.5], [-half, 0.6 + out, high + 0.5], [-half, 0.6, high], [half, 0.6, high]]]
    )
    color = paint(rng, rng.random(), (0.5, 0.95), (0.4, 0.95))
    post = lathe([(0.04, high), (0.04, -0.5)], 4, (0.4, 0.4, 0.4))
    return merge([quads(cloth, Material.STRIPES, color, (0.5, 4.0)), post.at(half, 0.6, 0.0), post.at(-half, 0.6, 0.0)])


def _planter(rng: np.random.Generator) -> Surface:
    half = rng.uniform(0.3, 1.0)
    tub = box((-half, 0.2, half, 0.9), -0.3, 0.55, paint(rng, 0.08, (0.1, 0.6), (0.3, 0.8)))
    return merge(
        [tub, _blob(0.0, 0.55, 0.75, half, 0.45, paint(rng, rng.choice([0.28, rng.random()]), (0.4, 0.9), (0.3, 0.8)))]
    )


def _cylinder(low: float, high: float, tall: tuple[float, float]) -> Callable[[np.random.Generator], Surface]:
    """Bollards, bins, hydrants and mailboxes."""

    def make(rng: np.random.Generator) -> Surface:
        radius, height = rng.uniform(low, high), rng.uniform(*tall)
        return lathe(
            [(0.0, height), (radius, height), (radius, -0.5)], 7, paint(rng, rng.random(), (0.0, 0.9), (0.15, 0.9))
        ).at(0.0, 0.4, 0.0)

    return make


def pole(rng: np.random.Generator) -> Surface:
    """Street lamp, power pole or traffic light."""
    gray = float(rng.uniform(0.2, 0.6))
    height, kind = rng.uniform(4.5, 9.5), rng.integers(3)
    mast = lathe([(0.08, height), (0.13, -FOOT_M)], 6, (gray, gray, gray) if kind != 1 else (0.36, 0.27, 0.2))
    if kind == 0:
        arm = box((-0.06, -rng.uniform(0.8, 2.5), 0.06, 0.0), height - 0.15, height, (gray, gray, gray))
        return merge([mast, arm])
    if kind == 1:
        return merge([mast, box((-1.1, -0.06, 1.1, 0.06), height - 0.8, height - 0.65, (0.3, 0.23, 0.18))])
    head = box((-0.17, -0.2, 0.17, 0.12), 2.4, 3.3, (0.1, 0.1, 0.1))
    lamp = box((-0.1, -0.22, 0.1, -0.2), 3.0, 3.2, paint(rng, rng.choice([0.0, 0.38]), (0.8, 1.0), (0.8, 1.0)))
    short = lathe([(0.07, 3.4), (0.08, -FOOT_M)], 6, (gray, gray, gray))
    return merge([short, head, lamp])


CLUTTER: dict[str, Callable[[np.random.Generator], Surface]] = {
    "awning": _awning,
    "barrier": _barrier,
    "billboard": _billboard,
    "bin": _cylinder(0.2, 0.4, (0.8, 1.3)),
    "bollard": _cylinder(0.07, 0.16, (0.6, 1.1)),
    "bush": _bush,
    "container": _container,
    "fence": _fence,
    "gantry": _gantry,
    "guardrail": _guardrail,
    "hedge": _hedge,
    "hydrant": _cylinder(0.12, 0.22, (0.5, 0.9)),
    "kiosk": _kiosk,
    "mailbox": _cylinder(0.12, 0.25, (0.9, 1.3)),
    "noise_wall": _noise_wall,
    "pallet": _pallet,
    "planter": _planter,
    "sign": _sign,
    "tank": _tank,
}
"""Street furniture by kind."""
