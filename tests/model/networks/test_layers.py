"""The parts that the architectures are built from."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from nnunetv2_guidino.model.networks.building_blocks import neighbour_mean, padded
from nnunetv2_guidino.model.networks.h2former import ChannelAttention
from nnunetv2_guidino.model.networks.swin_unet import Expanding, swin_block
from nnunetv2_guidino.model.networks.ukan import UKAN, KANLinear, spline_bases


def test_spline_bases_are_scipy_s_and_sum_to_one():
    step = 2 / 5
    knots = -1 + step * np.arange(-3, 9)
    values = torch.linspace(-2.5, 2.5, 211)
    bases = spline_bases(values, 5)
    expected = np.nan_to_num(
        np.stack([BSpline.basis_element(knots[i : i + 5], extrapolate=False)(values) for i in range(8)], axis=-1)
    )
    torch.testing.assert_close(bases, torch.tensor(expected, dtype=torch.float32), atol=1e-5, rtol=0)
    torch.testing.assert_close(bases[values.abs() <= 1].sum(dim=-1), torch.ones(int((values.abs() <= 1).sum())))


def test_spline_bases_are_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        values = torch.randn(4, 6, dtype=torch.bfloat16)
        assert spline_bases(values, 5).dtype == torch.float32
        assert KANLinear(6, 3)(values).isfinite().all()


@pytest.mark.parametrize(("kan", "has_splines"), [(True, True), (False, False)])
def test_kan_is_a_switch_that_works(kan, has_splines):
    network = UKAN(3, 1, False, [[1, 1]] * 3, widths=[16, 16, 16], kan=kan)
    assert any(isinstance(module, KANLinear) for module in network.modules()) == has_splines


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (4, 6), (1, 4, 5), (2, 2, 3), (3, 4, 5)])
def test_neighbour_mean_leaves_out_what_lies_beyond_the_border(size):
    tensor = torch.randn(2, 3, *size)
    corner = tensor[(..., *(slice(2) for _ in size))]
    mean = neighbour_mean(tensor)
    assert mean.shape == tensor.shape
    first = mean[(..., *(0 for _ in size))]
    torch.testing.assert_close(first, corner.flatten(2).mean(dim=2))
    torch.testing.assert_close(neighbour_mean(torch.ones(1, 1, *size)), torch.ones(1, 1, *size))


def test_channel_attention_weighs_channels_and_not_pixels():
    """Pixels in another order come out in that order; a channel's weight is its and its neighbours' means'."""
    attention, tokens = ChannelAttention(), torch.randn(2, 12, 5)
    order = torch.randperm(12)
    torch.testing.assert_close(attention(tokens[:, order]), attention(tokens)[:, order])
    weights = attention(tokens) / tokens - 1
    torch.testing.assert_close(weights, weights[:, :1].expand_as(weights), rtol=1e-3, atol=1e-4)
    kernel = attention.convolution.weight[0, 0]
    means = tokens[0].mean(dim=0)
    torch.testing.assert_close(weights[0, 0, 1], (kernel * means[:3]).sum().sigmoid(), rtol=1e-3, atol=1e-4)


def test_expanding_puts_each_token_s_parts_beside_each_other():
    expanding = Expanding(3, 1, by=2)
    expanding.norm = torch.nn.Identity()
    tokens = torch.randn(1, 2, 3, 3)
    expanded = expanding(tokens)
    assert expanded.shape == (1, 4, 6, 1)
    torch.testing.assert_close(expanded[0, 2:4, 4:6, 0].flatten(), expanding.expand(tokens[0, 1, 2]))


def test_swin_blocks_take_any_size_and_shift_every_second_window():
    blocks = [swin_block(8, 2, (4, 3), index, 0.0).eval() for index in range(2)]
    assert blocks[1].shift_size == (2, 1)
    for size in [(1, 1), (5, 9), (8, 6)]:
        tokens = torch.randn(1, *size, 8)
        for block in blocks:
            assert block(tokens).shape == tokens.shape
    # without a shift, a window does not see the next one
    tokens = torch.randn(1, 8, 6, 8)
    changed = tokens.clone()
    changed[:, 4:] += 1
    assert torch.equal(blocks[0](tokens)[:, :4, :3], blocks[0](changed)[:, :4, :3])
    assert not torch.equal(blocks[1](tokens)[:, :4], blocks[1](changed)[:, :4])


def test_padding_lies_behind():
    tensor = torch.ones(1, 1, 3, 4)
    assert padded(tensor, 4).shape == (1, 1, 4, 4)
    assert padded(tensor, 4)[..., 3, :].sum() == 0
