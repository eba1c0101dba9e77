"""SegDINO and its second version: light decoders on four layers of tokens; 2D."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.networks.building_blocks import Decoder, resized
from nnunetv2_guidino.model.networks.token_network import TokenNetwork


class SegDINO(TokenNetwork):
    """SegDINO: a head without norm and activation on four layers of tokens, each projected to the same width.

    Args:
        widths: Channels of the first projection of each layer.
        width: Channels of each projected layer.
        head: "transposed" enlarges the first layer by a transposed convolution, as in GuiDINO's tables; "published"
            does not, as in SegDINO's own publication.
        encoder_config: This setting and the others are TokenNetwork's. The published code trains the transformer too,
            though its paper keeps it frozen.

    Shape:
        (B, n, H, W) -> (B, classes, H, W)
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool,
        strides: Sequence[Sequence[int]],
        encoder_config: dict[str, Any],
        normalization_schemes: Sequence[str],
        layers: Sequence[int] = (3, 6, 9, 12),
        widths: Sequence[int] = (96, 192, 384, 768),
        width: int = 128,
        head: str = "transposed",
        tuning: str = "frozen",
        lora: Mapping[str, Any] | None = None,
        min_input_size: int = 224,
        pretrained: str | None = None,
    ):
        features = [width] * len(layers)
        super().__init__(
            input_channels, num_classes, deep_supervision, strides,
            encoder_config, normalization_schemes, layers, features, tuning, lora, min_input_size, pretrained,
        )  # fmt: skip
        if head not in ("transposed", "published"):
            raise GuidinoError(f'SegDINO: head is {head!r}; expected "transposed" or "published"')
        if len(widths) != len(layers):
            raise GuidinoError(f"SegDINO: {len(widths)} widths for {len(layers)} layers; expected one for each")
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(self.width, hidden, 1), nn.Conv2d(hidden, width, 3, padding=1, bias=False))
            for hidden in widths
        )
        self.decoder = SegDINODecoder(features, head == "transposed", num_classes, deep_supervision)

    def features_of(self, maps: list[Tensor]) -> list[Tensor]:
        return [projection(tokens) for projection, tokens in zip(self.projections, maps, strict=True)]


class SegDINODecoder(Decoder):
    """One head on all projected layers side by side.

    Shape:
        [(B, width, h, w)] -> (B, classes, H, W)
    """

    def __init__(self, features: Sequence[int], transposed: bool, num_classes: int, deep_supervision: bool):
        super().__init__([sum(features)], num_classes, deep_supervision)
        width = features[0]
        self.enlarge = nn.ConvTranspose2d(width, width, 4, stride=4, bias=False) if transposed else nn.Identity()

    def forward(self, features: list[Tensor], size: Sequence[int]) -> Tensor | list[Tensor]:
        first = self.enlarge(features[0])
        others = [resized(feature, first.shape[2:], align_corners=True) for feature in features[1:]]
        logits = self.seg_layers[0](torch.cat((first, *others), dim=1))
        return self.one_of_list(resized(logits, size, align_corners=True))


class SegDINO2(TokenNetwork):
    """SegDINO's second version (MICCAI 2026): a pyramid of four sizes, refined from the coarsest to the finest.

    Args:
        width: Channels of the pyramid, a multiple of 32.
        encoder_config: This setting and the others are TokenNetwork's.

    Shape:
        (B, n, H, W) -> (B, classes, H, W)
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool,
        strides: Sequence[Sequence[int]],
        encoder_config: dict[str, Any],
        normalization_schemes: Sequence[str],
        layers: Sequence[int] = (3, 6, 9, 12),
        width: int = 256,
        tuning: str = "frozen",
        lora: Mapping[str, Any] | None = None,
        min_input_size: int = 224,
        pretrained: str | None = None,
    ):
        features = [width] * len(layers)
        super().__init__(
            input_channels, num_classes, deep_supervision, strides,
            encoder_config, normalization_schemes, layers, features, tuning, lora, min_input_size, pretrained,
        )  # fmt: skip
        self.projections = nn.ModuleList(nn.Conv2d(self.width, width, 1, bias=False) for _ in layers)
        self.decoder = PyramidDecoder(features, num_classes, deep_supervision)

    def features_of(self, maps: list[Tensor]) -> list[Tensor]:
        return [projection(tokens) for projection, tokens in zip(self.projections, maps, strict=True)]


class PyramidDecoder(Decoder):
    """A pyramid of the layers at 8, 4, 2 and 1 times the tokens' size: each is refined and added to the next finer one.

    Shape:
        [(B, width, h, w)] -> (B, classes, H, W)
    """

    def __init__(self, features: Sequence[int], num_classes: int, deep_supervision: bool):
        super().__init__(features[:1], num_classes, deep_supervision)
        self.smoothings = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for width in features)
        self.refinements = nn.ModuleList(Separable(width) for width in features)
        self.joinings = nn.ModuleList(Separable(width) for width in features)

    def forward(self, features: list[Tensor], size: Sequence[int]) -> Tensor | list[Tensor]:
        pyramid = []
        for level, feature in enumerate(features):
            sides = [side * 2 ** (len(features) - 1 - level) for side in feature.shape[2:]]
            pyramid.append(self.refinements[level](self.smoothings[level](resized(feature, sides))))
        below = self.joinings[-1](pyramid[-1])
        for level in reversed(range(len(pyramid) - 1)):
            below = self.joinings[level](pyramid[level] + resized(below, pyramid[level].shape[2:]))
        return self.one_of_list(resized(self.seg_layers[0](below), size))


class Separable(nn.Module):
    """x + strength · GELU(GroupNorm(a depthwise and a pointwise convolution)); the strength starts at zero."""

    def __init__(self, width: int):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.Conv2d(width, width, 1, bias=False),
            nn.GroupNorm(32, width),
            nn.GELU(),
        )
        self.strength = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.strength * self.convolutions(features)
