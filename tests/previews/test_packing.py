import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from coopmap.viz.packing import angle_levels, pack, range_levels, range_step, unpack
from coopmap.viz.panels import enlarged


@given(arrays.arrays(np.uint16, st.tuples(st.integers(1, 5), st.integers(1, 7))))
def test_unpacking_inverts_packing(values):
    assert (unpack(pack(values), *values.shape) == values).all()


@pytest.mark.parametrize("farthest", [5.0, 200.0, 262.0, 1000.0])
def test_ranges_are_off_by_half_a_step_and_unknown_stays_unknown(farthest):
    depth = np.append(np.linspace(0.01, farthest, 999), 0).reshape(10, 100).astype(np.float32)
    step = range_step(depth)
    assert step == pytest.approx(max(0.004, farthest / 65535))
    levels = range_levels(depth, step)
    assert ((levels > 0) == (depth > 0)).all()
    assert np.abs(levels * step - depth).max() <= step / 2 + 1e-9


def test_angles_start_behind_and_below():
    rays = np.array([[[0, 0, 1], [1, 0, 0], [-1, 0, 0], [0, -1, 0], [0, 1, 1]]], np.float32)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    azimuth, elevation = angle_levels(rays)
    assert azimuth[0, [0, 1, 2, 4]].tolist() == [18000, 27000, 9000, 18000]
    assert elevation[0].tolist() == [9000, 9000, 9000, 18000, 4500]


def test_points_grow_by_their_reach_and_the_nearest_is_in_front():
    depth = np.zeros((5, 8), np.float32)
    depth[2, 1], depth[2, 3], depth[4, 7] = 9, 5, 2
    grown = enlarged(depth, 1)
    assert grown[2].tolist() == [9, 9, 5, 5, 5, 0, 0, 0]
    assert grown[0].tolist() == [0] * 8
    assert grown[3, 6:].tolist() == [2, 2]
    assert enlarged(depth, 0) is depth
