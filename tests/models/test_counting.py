"""Counts against numbers worked out by hand."""

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from coopmap.models.counting import Work, WorkCounter


def test_products_count_two_operations_per_multiplication():
    with WorkCounter() as counter:
        torch.zeros(3, 5) @ torch.zeros(5, 7)
    assert counter.work.flops == 2 * 3 * 5 * 7


def test_convolution_and_its_backward_pass():
    images, kernels = torch.zeros(2, 3, 8, 10), torch.zeros(4, 3, 3, 3, requires_grad=True)
    forward = 2 * 2 * (4 * 8 * 10) * (3 * 3 * 3)
    with WorkCounter() as counter:
        output = F.conv2d(images, kernels, padding=1)
        assert counter.work.flops == forward
        output.sum().backward()
    assert counter.work.flops == 2 * forward  # the images want no gradient


@pytest.mark.parametrize("fake", [True, False])
def test_fused_attention(fake):
    """Two products forward; backward five, of which one recomputes the scores."""
    heads, tokens, width = 3, 40, 16
    product = 2 * heads * tokens * tokens * width
    with FakeTensorMode() if fake else torch.enable_grad(), WorkCounter() as counter:
        query, key, value = (torch.zeros(1, heads, tokens, width, requires_grad=True) for _ in range(3))
        output = F.scaled_dot_product_attention(query, key, value)
        forward = counter.work.flops
        output.sum().backward()
    assert forward == 2 * product
    assert counter.work.flops - forward == 5 * product
    assert counter.attention == {
        "aten._scaled_dot_product_flash_attention_for_cpu",
        "aten._scaled_dot_product_flash_attention_for_cpu_backward",
    }


def test_other_operations_count_what_they_read_and_write_and_views_nothing():
    tensor, other = torch.zeros(10, 10), torch.zeros(10)
    with WorkCounter() as counter:
        looked_at = tensor.t()[2:].flatten(0, 0).unsqueeze(0)
        assert counter.work == Work()
        looked_at + other  # reads 80 + 10, writes 80 values
        assert counter.work == Work(0, 4 * (80 + 10 + 80))
        tensor.zero_()
    assert counter.work.num_bytes - 4 * 170 >= 4 * 100
    assert counter.work.flops == 0


@pytest.mark.parametrize("fake", [True, False])
def test_peak_memory_is_that_of_tensors_alive_together(fake):
    with FakeTensorMode() if fake else torch.enable_grad(), WorkCounter() as counter:
        first = torch.empty(1000)
        second = first * 2
        del first
        gc.collect()
        assert (counter.live_bytes, counter.peak_bytes) == (4000, 8000)
        third = second.view(10, 100)  # the same storage
        del second
        assert counter.live_bytes == 4000
        torch.exp(third)  # dropped at once
        assert (counter.live_bytes, counter.peak_bytes) == (4000, 8000)
        counter.forget_all()
        assert counter.live_bytes == 0
        counter.watch(third)
        assert (counter.live_bytes, counter.peak_bytes) == (4000, 4000)


def test_activations_saved_for_the_backward_pass_stay_alive():
    layers = nn.Sequential(*[nn.Sigmoid() for _ in range(4)])
    with WorkCounter() as counter:
        inputs = torch.zeros(1000, requires_grad=True)
        output = layers(inputs)
        assert counter.live_bytes == 5 * 4000
        output.sum().backward()
        del output
        gc.collect()
    assert counter.live_bytes == 2 * 4000  # inputs and their gradient
