"""Numbering of cells and their parts."""

import torch

from coopmap.geometry.cells import at_centers, at_part_centers, neighbors


def test_centers_and_parts_in_order():
    """Pixels numbered row by row; cells of 4 x 4 pixels, parts of 2 x 2."""
    maps = torch.arange(8 * 12).view(1, 1, 8, 12)
    assert at_centers(maps, 4).flatten().tolist() == [26, 30, 34, 74, 78, 82]
    parts = at_part_centers(maps, 4)
    assert parts.shape == (1, 1, 6, 4)
    assert parts[0, 0, 0].tolist() == [13, 15, 37, 39]
    assert parts[0, 0, 4].tolist() == [65, 67, 89, 91]


def test_neighbors_join_the_ends_of_a_row_and_stay_in_their_view():
    grid = (2, 5)
    first, in_second_view = neighbors(torch.tensor([0, 13]), grid)
    assert first.tolist() == [4, 0, 1, 4, 0, 1, 9, 5, 6]
    assert in_second_view.tolist() == [12, 13, 14, 12, 13, 14, 17, 18, 19]
