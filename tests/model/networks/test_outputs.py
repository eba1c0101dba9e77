"""Outputs of each architecture against the published network in plain functional form, with the same random weights."""

import math

import numpy as np
import pytest
import torch
from published import PublishedH2Former, PublishedNNWNet, PublishedSwinBlock, randomise
from published_heads import PublishedSegDINO, PublishedSegDINO2, PublishedSegGuiDINO, PublishedUKAN, spline_bases
from tiny_networks import SETTINGS, tiny_network
from torch import nn

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.networks.h2former import AttentiveMLP
from nnunetv2_guidino.model.networks.nnwnet import NNWNet
from nnunetv2_guidino.model.networks.swin_unet import swin_block
from nnunetv2_guidino.model.networks.ukan import UKAN, KANLinear

SIZE = (64, 96)
TOKENS = (5, 7)
in_both_modes = pytest.mark.parametrize("training", [False, True])


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def random_network(name, training=False, size=SIZE, **settings):
    return randomise(tiny_network(name, size, **settings)).train(training)


@in_both_modes
@pytest.mark.parametrize("size", [(64, 96), (48, 64, 48)])
def test_nnwnet(size, training):
    strides = [[1] * len(size)] + [[2] * len(size)] * 4
    network = randomise(NNWNet(3, 2, True, strides, SETTINGS["nnwnet"]["widths"])).train(training)
    published = PublishedNNWNet(network.state_dict(), training)
    patch = noise(2, 3, *size)
    torch.testing.assert_close(network(patch), published(patch))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_nnwnet_s_norm_is_a_setting(dimensions):
    strides = [[1] * dimensions, [2] * dimensions]
    for settings, kind in [({}, "BatchNorm"), ({"norm": "batch"}, "BatchNorm"), ({"norm": "instance"}, "InstanceNorm")]:
        network = NNWNet(1, 2, False, strides, [4, 6], **settings)
        used = {type(m).__name__ for m in network.modules() if "Norm" in type(m).__name__}
        assert used == {f"{kind}{dimensions}d", "GroupNorm"}
    with pytest.raises(GuidinoError, match="norm is 'layer'; expected one of batch, instance"):
        NNWNet(1, 2, False, strides, [4, 6], norm="layer")


@in_both_modes
def test_h2former(training):
    """Four levels, of which one window covers the last."""
    network = random_network("h2former", training, (64, 64), window=[4, 4], drop_path=0.0)
    published = PublishedH2Former(network.state_dict(), training)
    patch = noise(2, 3, 64, 64)
    expected = published(patch, SETTINGS["h2former"]["heads"], (4, 4))
    torch.testing.assert_close(network(patch)[0], expected)


def test_h2former_s_mlp_attends_to_its_outputs():
    mlp = randomise(AttentiveMLP(6))
    published = PublishedH2Former({f"mlp.{key}": tensor for key, tensor in mlp.state_dict().items()})
    tokens = noise(2, 3, 4, 6)
    torch.testing.assert_close(mlp(tokens.flatten(1, 2)).reshape(tokens.shape), published.mlp("mlp", tokens))


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    ("size", "shift"),
    [((8, 9), (2, 1)), ((4, 9), (0, 1)), ((8, 3), (2, 0)), ((4, 3), (0, 0))],
)
def test_swin_blocks_shift_windows_only_where_several_lie_side_by_side(size, shift, index):
    block = randomise(swin_block(8, 2, (4, 3), index, 0.0)).eval()
    published = PublishedSwinBlock({f"block.{key}": tensor for key, tensor in block.state_dict().items()})
    for _ in range(2):  # of other sizes in between
        tokens = noise(2, *size, 8)
        expected = published.swin("block", tokens, 2, (4, 3), shift if index else (0, 0))
        torch.testing.assert_close(block(tokens), expected)
        block(noise(1, 8, 9, 8))


def token_maps():
    return [noise(2, 32, *TOKENS) + i for i in range(4)]  # as many channels as the tiny transformer has


@pytest.mark.parametrize("head", ["published", "transposed"])
def test_segdino_s_head(head):
    network = random_network("segdino", head=head)
    maps = token_maps()
    published = PublishedSegDINO(network.state_dict())(maps, SIZE, head == "transposed")
    torch.testing.assert_close(network.decode(network.features_of(maps), SIZE)[0], published)


def test_the_head_of_segdino_s_second_version():
    network = random_network("segdino2")
    maps = token_maps()
    published = PublishedSegDINO2(network.state_dict())(maps, SIZE)
    torch.testing.assert_close(network.decode(network.features_of(maps), SIZE)[0], published)


@in_both_modes
@pytest.mark.parametrize("name", ["seg_guidino", "seg_guidino_partner"])
def test_seg_guidino_s_head(name, training):
    """Training drops no channels."""
    network = random_network(name, training)
    tokens = token_maps()[0]
    published = PublishedSegGuiDINO(network.state_dict())(tokens, SIZE, partner=name.endswith("partner"))
    torch.testing.assert_close(network.decode(network.features_of([tokens]), SIZE)[0], published)


@in_both_modes
def test_ukan(training):
    network = random_network("ukan", training).float()  # as its splines are
    published = PublishedUKAN(network.double().state_dict(), training)
    patch = noise(2, 3, *SIZE)
    torch.testing.assert_close(network.float()(patch.float())[0].double(), published(patch), rtol=1e-3, atol=1e-3)


def test_kan_linear():
    """A spline of random coefficients on every edge, inside its interval and beyond."""
    linear = randomise(KANLinear(5, 3)).float()
    values = noise(4, 6, 5)
    expected = PublishedUKAN(linear.double().state_dict()).kan_linear("", values)
    torch.testing.assert_close(linear.float()(values.float()), expected.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kan", [True, False])
def test_ukan_s_convolutions_and_matrices_start_as_published(kan):
    torch.manual_seed(0)
    network = UKAN(3, 2, False, [[1, 1]] * 3, kan=kan)
    spreads = {}
    for key, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size) / module.groups
            spreads[key] = module, math.sqrt(2 / fan_out)
        elif isinstance(module, nn.Linear):
            spreads[key] = module, 0.02
    assert len(spreads) == 3 * 2 + 2 + 4 * 3 + 5 * 2 + 1 + (0 if kan else 4 * 3)
    for key, (module, spread) in spreads.items():
        error = 4 * spread / math.sqrt(2 * module.weight.numel())  # four times that of the spread of a normal sample
        assert float(module.weight.detach().std()) == pytest.approx(spread, abs=error), key
        assert not module.bias.any(), key
    assert float(network.encoder.blocks[0].convolutions[0][0].weight.detach().std()) == pytest.approx(0.47, abs=0.04)


def test_splines_start_as_a_fit_to_noise():
    torch.manual_seed(0)
    coefficients = KANLinear(200, 100).spline_weight.detach().double()
    knots = torch.linspace(-1, 1, 6, dtype=torch.float64)
    values = coefficients @ spline_bases(knots).T  # uniform noise, 0.1 / 5 wide
    assert values.abs().max() <= 0.01 + 1e-6
    torch.testing.assert_close(
        values.std(dim=(0, 1)), torch.full((6,), 0.02 / math.sqrt(12)).double(), rtol=0.03, atol=0
    )
    fit, *_ = np.linalg.lstsq(spline_bases(knots).numpy(), values.flatten(0, 1).T.numpy(), rcond=None)
    torch.testing.assert_close(coefficients.flatten(0, 1).T, torch.tensor(fit), atol=1e-6, rtol=0)
    spread = coefficients.std(dim=(0, 1))
    assert (round(float(spread.min()), 3), round(float(spread.max()), 3)) == (0.003, 0.011)
