"""U-KAN (AAAI 2025): a U-Net whose coarsest levels mix channels by learned splines instead of matrices; 2D."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from timm.layers.drop import DropPath
from torch import Tensor, nn

from nnunetv2_guidino.model.networks.building_blocks import Decoder, OneOutput, channels_first, channels_last, resized


class UKAN(OneOutput):
    """U-KAN for patches of any size and any number of channels.

    Args:
        input_channels: The number of the patch's channels.
        num_classes: The number of the output's classes.
        deep_supervision: nnU-Net's switch.
        strides: The strides in nnU-Net's plans.
        widths: Channels of the three coarsest levels; the two finest have an eighth and a quarter of the first width.
        kan: False replaces each spline layer by a plain linear layer.
        drop_path: The rate of drop path in each block.

    Shape:
        (B, n, H, W) -> (B, classes, H, W)
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool,
        strides: Sequence[Sequence[int]],
        widths: Sequence[int] = (128, 160, 256),
        kan: bool = True,
        drop_path: float = 0.0,
    ):
        first, middle, last = widths
        levels = [first // 8, first // 4, first, middle, last]
        super().__init__(strides, levels)
        self.encoder = UKANEncoder(input_channels, levels, kan, drop_path)
        self.decoder = UKANDecoder(levels, kan, drop_path, num_classes, deep_supervision)
        self.apply(_initialise)

    def encode(self, patch: Tensor) -> list[Tensor]:
        return self.encoder(patch)

    def decode(self, features: list[Tensor], size: Sequence[int]) -> Tensor | list[Tensor]:
        return self.decoder(features, size)


class UKANEncoder(nn.Module):
    """Three levels of convolutions and two of KAN blocks; each level halves the size, rounded up.

    Shape:
        (B, n, H, W) -> [(B, C_i, ⌈H / 2^(i + 1)⌉, ⌈W / 2^(i + 1)⌉), finest first]
    """

    def __init__(self, input_channels: int, levels: Sequence[int], kan: bool, drop_path: float):
        super().__init__()
        inputs = [input_channels, *levels[:2]]
        self.stages = nn.ModuleList(
            _convolved(channels, width, width) for channels, width in zip(inputs, levels[:3], strict=True)
        )
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.embeddings = nn.ModuleList(
            nn.Conv2d(channels, width, 3, stride=2, padding=1) for channels, width in pairwise(levels[2:])
        )
        self.embedding_norms = nn.ModuleList(nn.LayerNorm(width) for width in levels[3:])
        self.blocks = nn.ModuleList(KANBlock(width, kan, drop_path) for width in levels[3:])

    def forward(self, patch: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            patch = self.pool(stage(patch))  # all above zero
            features.append(patch)
        for embedding, norm, block in zip(self.embeddings, self.embedding_norms, self.blocks, strict=True):
            patch = block(channels_first(norm(channels_last(embedding(patch)))))
            features.append(patch)
        return features


class UKANDecoder(Decoder):
    """A decoder from the coarsest features up that adds the encoder's features.

    Shape:
        the features of UKANEncoder -> (B, classes, H, W)
    """

    def __init__(self, levels: Sequence[int], kan: bool, drop_path: float, num_classes: int, deep_supervision: bool):
        super().__init__(levels[:1], num_classes, deep_supervision)
        widths = [levels[0], *levels[:-1]]
        self.stages = nn.ModuleList(
            _convolved(below, below, width) for width, below in zip(widths, levels, strict=True)
        )
        self.blocks = nn.ModuleList(KANBlock(width, kan, drop_path) for width in levels[2:4])

    def forward(self, features: list[Tensor], size: Sequence[int]) -> Tensor | list[Tensor]:
        below = features[-1]
        for level in (3, 2, 1, 0):
            skip = features[level]
            below = F.relu(resized(self.stages[level + 1](below), skip.shape[2:])) + skip
            if level >= 2:
                below = self.blocks[level - 2](below)
        finest = F.relu(resized(self.stages[0](below), size))
        return self.one_of_list(self.seg_layers[0](finest))


class KANBlock(nn.Module):
    """x + f(LN x), then a norm; f is three times splines over channels and a depthwise convolution over pixels.

    Shape:
        (B, C, h, w) -> the same
    """

    def __init__(self, width: int, kan: bool, drop_path: float):
        super().__init__()
        linear = KANLinear if kan else nn.Linear
        self.norm = nn.LayerNorm(width)
        self.linears = nn.ModuleList(linear(width, width) for _ in range(3))
        self.convolutions = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, groups=width), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
            )
            for _ in range(3)
        )
        self.drop_path = DropPath(drop_path)
        self.last_norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        tokens = channels_last(features)
        mixed = self.norm(tokens)
        for linear, convolution in zip(self.linears, self.convolutions, strict=True):
            mixed = channels_last(convolution(channels_first(linear(mixed))))
        return channels_first(self.last_norm(tokens + self.drop_path(mixed)))


class KANLinear(nn.Module):
    """A linear layer that has a learned function on each edge: SiLU times a weight, plus a cubic spline.

    The spline has five equal intervals in [-1, 1] and fades out beyond; it is computed in float32. It starts as a
    least-squares fit to uniform noise of width 0.1 / 5 at the knots.

    Shape:
        (…, channels) -> (…, width)
    """

    intervals = 5

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.base_weight = nn.Parameter(torch.empty(width, channels))
        knots = torch.linspace(-1, 1, self.intervals + 1)
        noise = 0.1 / self.intervals * (torch.rand(width, channels, len(knots)) - 0.5)
        fit = torch.linalg.pinv(spline_bases(knots, self.intervals))  # the least of the splines through the noise
        self.spline_weight = nn.Parameter(noise @ fit.T)
        self.spline_scaler = nn.Parameter(torch.empty(width, channels))
        for weight in (self.base_weight, self.spline_scaler):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))

    def forward(self, values: Tensor) -> Tensor:
        weight = self.spline_weight * self.spline_scaler[..., None]
        splines = F.linear(spline_bases(values, self.intervals).flatten(-2), weight.flatten(1))
        return F.linear(F.silu(values), self.base_weight) + splines


def spline_bases(values: Tensor, intervals: int) -> Tensor:
    """Return the cubic B-splines whose knots part [-1, 1] into equal intervals.

    With equal intervals each spline is the same bump, four intervals wide: (2 − d)³₊/6 − 4 (1 − d)³₊/6 at a distance of
    d intervals from its middle.

    Shape:
        (…) -> (…, intervals + 3), float32
    """
    middles = torch.arange(-1, intervals + 2, device=values.device, dtype=torch.float32)
    distance = ((values.float()[..., None] + 1) * (intervals / 2) - middles).abs()
    outer, inner = F.relu(2 - distance), F.relu(1 - distance)
    return (outer * outer * outer - 4 * inner * inner * inner) / 6


def _convolved(channels: int, hidden: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 3, padding=1),
        nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
