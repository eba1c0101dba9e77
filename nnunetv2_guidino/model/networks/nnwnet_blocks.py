"""The blocks of nnWNet, for two and three dimensions and either norm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn

from nnunetv2_guidino.model.networks.building_blocks import neighbour_mean, resized


class Layers(NamedTuple):
    """The classes of the convolutions and of the norms behind them."""

    convolution: type[nn.Module]
    norm: type[nn.Module]


LAYERS = {
    "batch": {2: Layers(nn.Conv2d, nn.BatchNorm2d), 3: Layers(nn.Conv3d, nn.BatchNorm3d)},
    "instance": {2: Layers(nn.Conv2d, nn.InstanceNorm2d), 3: Layers(nn.Conv3d, nn.InstanceNorm3d)},
}


class Residual(nn.Module):
    """Two convolutions, added to the input (through a 1×1 convolution if the width changes), and a GELU."""

    def __init__(self, channels: int, width: int, layers: Layers):
        super().__init__()
        self.convolutions = nn.Sequential(
            convolved(channels, width, layers),
            layers.convolution(width, width, 3, padding=1),
            layers.norm(width, affine=True),
        )
        self.shortcut: nn.Module = nn.Identity()
        if channels != width:
            self.shortcut = nn.Sequential(layers.convolution(channels, width, 1), layers.norm(width, affine=True))
        self.activation = nn.GELU()

    def forward(self, tensor: Tensor) -> Tensor:
        return self.activation(self.convolutions(tensor) + self.shortcut(tensor))


class GlobalBlock(nn.Module):
    """Mixes each pixel with the mean of its neighbours, then the channels of each pixel.

    The published network mixes no neighbours in a volume of fewer than three slices; this one mixes those that exist.
    """

    def __init__(self, channels: int, width: int, layers: Layers):
        super().__init__()
        convolution = layers.convolution
        self.convolution = convolution(channels, width, 3, padding=1)
        self.mixer_norm = nn.GroupNorm(1, width)
        self.mlp = nn.Sequential(
            nn.GroupNorm(1, width), convolution(width, 4 * width, 1), nn.GELU(), convolution(4 * width, width, 1)
        )

    def forward(self, tensor: Tensor) -> Tensor:
        tensor = self.convolution(tensor)
        normed = self.mixer_norm(tensor)
        tensor = tensor + neighbour_mean(normed) - normed
        return tensor + self.mlp(tensor)


def convolved(
    channels: int, width: int, layers: Layers, stride: int | tuple[int, ...] = 1, bias: bool = True
) -> nn.Sequential:
    """Build a 3×3 convolution, a norm and a GELU."""
    return nn.Sequential(
        layers.convolution(channels, width, 3, stride, padding=1, bias=bias),
        layers.norm(width, affine=True),
        nn.GELU(),
    )


def downs(widths: Sequence[int], strides: Sequence[Sequence[int]], layers: Layers) -> nn.ModuleList:
    """Build a strided convolution from each level to the next coarser one."""
    steps = zip(pairwise(widths), strides[1:], strict=True)
    return nn.ModuleList(convolved(above, width, layers, tuple(stride), bias=False) for (above, width), stride in steps)


def raised(up: nn.Module, below: Tensor, beside: Tensor) -> Tensor:
    """Enlarge a level's features to the next finer level's size, and convolve them."""
    features: Tensor = up(resized(below, beside.shape[2:], align_corners=True))
    return features
