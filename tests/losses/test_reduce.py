import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coopmap.losses.logged import name_views
from coopmap.losses.reduce import lowest_share_weights, weighted_mean


def test_weighted_mean_of_nothing_is_zero_with_a_zero_gradient():
    values = torch.tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True)
    mean = weighted_mean(values, torch.tensor([[1.0, 0.0], [0.0, 0.0]]), dim=1)
    assert mean.tolist() == [1.0, 0.0]
    mean.sum().backward()
    assert values.grad.tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_lowest_share_keeps_whole_pixels_of_each_view():
    values = torch.tensor([[[[4.0, 1.0, 3.0, 2.0]], [[9.0, 1.0, 1.0, 1.0]]]])
    valid = torch.tensor([[[[True, True, True, False]], [[True, True, True, True]]]])
    weights = lowest_share_weights(values, valid, torch.tensor([0.7]))
    # floor(0.7 * 3) = 2 of the first view; floor(0.7 * 4) = 2 of three equal values of the second.
    torch.testing.assert_close(weights, torch.tensor([[[[0.0, 1.0, 1.0, 0.0]], [[0.0, 2 / 3, 2 / 3, 2 / 3]]]]))


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.0]), min_size=1, max_size=40),
    num_valid=st.integers(0, 40),
    percent=st.integers(1, 100),
)
def test_lowest_share_is_the_mean_of_the_sorted_prefix(values, num_valid, percent):
    tensor = torch.tensor(values).view(1, 1, 1, -1)
    valid = (torch.arange(len(values)) < num_valid).view_as(tensor)
    weights = lowest_share_weights(tensor, valid, torch.tensor([percent / 100]))
    kept = sorted(values[:num_valid])[: int(torch.tensor(min(num_valid, len(values)) * percent / 100))]
    torch.testing.assert_close(weights.sum().item(), float(len(kept)), rtol=0, atol=1.01)
    if weights.sum().round() == len(kept) and kept:  # float32 may round the count where the product is whole
        torch.testing.assert_close(weighted_mean(tensor, weights, 3).item(), sum(kept) / len(kept))


def test_average_counts_views_with_a_positive_value_unless_told_otherwise():
    per_view = torch.tensor([0.0, 2.0, 4.0], requires_grad=True)
    entries = name_views("pose_trans", per_view)
    assert {name: value.item() for name, value in entries.items()} == {
        "pose_trans_view1": 0.0,
        "pose_trans_view2": 2.0,
        "pose_trans_view3": 4.0,
        "pose_trans_avg": 3.0,
    }
    assert not any(value.requires_grad for value in entries.values())
    present = torch.tensor([True, True, False])
    assert name_views("x", torch.tensor([-1.0, 2.0, 9.0]), present)["x_avg"] == 0.5
