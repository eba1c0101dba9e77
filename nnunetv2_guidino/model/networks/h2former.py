"""H2Former (TMI 2023): a ResNet and Swin blocks level by level, with convolutions of several scales; on timm's; 2D."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from nnunetv2_guidino.model.encoders.source import EncoderSource
from nnunetv2_guidino.model.networks.building_blocks import (
    Decoder,
    OneOutput,
    cropped,
    over_channels,
    padded,
    resized,
    rising,
)
from nnunetv2_guidino.model.networks.swin_unet import swin_block
from nnunetv2_guidino.model.networks.timm_weights import load_parts


class H2Former(OneOutput):
    """H2Former for patches of any size and any number of channels.

    Its channel attention weighs channels inside the transformers' MLPs, too; there the published code weighs pixels.

    Args:
        input_channels: The number of the patch's channels.
        num_classes: The number of the output's classes.
        deep_supervision: nnU-Net's switch.
        strides: The strides in nnU-Net's plans.
        window: Tokens along the height and the width of a window at every level; in the published network a sixteenth
            of the patch.
        width: Channels of the finest level; each level doubles them.
        blocks: The number of the ResNet's blocks at each level.
        heads: The number of heads of the attention at each level, in two blocks.
        drop_path: The rate of drop path in the last transformer block; it rises from zero.
        pretrained: A folder or a name on the hub with timm's ResNet of this width and these blocks; None starts at
            random.

    Shape:
        (B, n, H, W) -> (B, classes, H, W)
    """

    published_weights: ClassVar[str | None] = "timm/resnet34.tv_in1k"

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool,
        strides: Sequence[Sequence[int]],
        window: Sequence[int] = (16, 16),
        width: int = 64,
        blocks: Sequence[int] = (3, 4, 6, 3),
        heads: Sequence[int] = (2, 4, 8, 16),
        drop_path: float = 0.1,
        pretrained: str | None = None,
    ):
        widths = [width * 2**level for level in range(4)]
        super().__init__(strides, widths, pretrained)
        rates = rising(drop_path, 2 * len(widths))
        transformers = [
            nn.Sequential(*(_transformer(channels, count, window, index, rates.pop(0)) for index in range(2)))
            for channels, count in zip(widths, heads, strict=True)
        ]
        self.encoder = H2Encoder(input_channels, widths, blocks, transformers)
        self.decoder = H2Decoder(widths, num_classes, deep_supervision)

    @classmethod
    def planned(cls, configuration: Mapping[str, Any], /, **settings: Any) -> dict[str, Any]:
        """Return all settings; the window is a sixteenth of the planned patch."""
        window = [math.ceil(side / 16) for side in configuration["patch_size"]]
        return super().planned(configuration, **{"window": window, **settings})

    def load_weights(self, folder: Path, name: str) -> EncoderSource:
        """Load the ResNet's weights."""
        resnet = self.encoder.resnet
        return load_parts(folder, name, [(resnet, "")], "conv1.weight", resnet.conv1.in_channels)

    def encode(self, patch: Tensor) -> list[Tensor]:
        return self.encoder(patch)

    def decode(self, features: list[Tensor], size: Sequence[int]) -> Tensor | list[Tensor]:
        return self.decoder(features, size)


class H2Encoder(nn.Module):
    """An encoder with transformers at each level, on the sum of a ResNet stage and of convolutions of several scales.

    The ResNet stage reads the output of the transformers of the level above, and the convolutions read it through a
    norm.

    Shape:
        (B, n, H, W) -> [(B, C_i, ⌈H / 2^(i + 1)⌉, ⌈W / 2^(i + 1)⌉), finest first]
    """

    def __init__(
        self, input_channels: int, widths: Sequence[int], blocks: Sequence[int], transformers: Sequence[nn.Module]
    ):
        super().__init__()
        resnet: Any = ResNet(
            cast(Any, BasicBlock),
            cast(Any, tuple(blocks)),
            num_classes=0,
            in_chans=input_channels,
            stem_width=widths[0],
            channels=cast(Any, tuple(widths)),
            zero_init_last=False,
        )
        resnet.conv1.stride = (1, 1)
        self.resnet = resnet  # with timm's names, by which pretrained weights fit
        first = widths[0]
        self.mixings = nn.ModuleList([MultiScale(input_channels, [first // 2, first // 4, first // 8, first // 8])])
        self.mixings.extend(MultiScale(channels, [channels, channels]) for channels in widths[:-1])
        self.first_norm = nn.LayerNorm(first)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in widths[:-1])
        self.transformers = nn.ModuleList(transformers)

    def forward(self, patch: Tensor) -> list[Tensor]:
        resnet: Any = self.resnet
        below = resnet.maxpool(resnet.act1(resnet.bn1(resnet.conv1(patch))))
        mixed = over_channels(self.first_norm, self.mixings[0](patch))
        features: list[Tensor] = []
        for level, transformer in enumerate(self.transformers):
            if level > 0:
                mixed = self.mixings[level](over_channels(self.norms[level - 1], below))
            below = over_channels(transformer, getattr(resnet, f"layer{level + 1}")(below) + mixed)
            features.append(below)
        return features


class H2Decoder(Decoder):
    """A decoder from the coarsest features up that joins each level with the encoder's features.

    Shape:
        the features of H2Encoder -> (B, classes, H, W)
    """

    def __init__(self, widths: Sequence[int], num_classes: int, deep_supervision: bool):
        super().__init__(widths[:1], num_classes, deep_supervision, bias=False)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[:-1])
        self.joinings = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            for width in widths[:-1]
        )

    def forward(self, features: list[Tensor], size: Sequence[int]) -> Tensor | list[Tensor]:
        below = features[-1]
        for level in reversed(range(len(self.ups))):
            skip = features[level]
            raised = cropped(self.ups[level](below), skip.shape[2:])
            below = self.joinings[level](torch.cat((raised, skip), dim=1))
        return self.one_of_list(self.seg_layers[0](resized(below, size, align_corners=True)))


class MultiScale(nn.Module):
    """Convolutions with kernels 2, 4, 8, … side by side, which halve the size, and channel attention on all of them.

    Shape:
        (B, C, H, W) -> (B, sum of widths, ⌈H / 2⌉, ⌈W / 2⌉)
    """

    def __init__(self, channels: int, widths: Sequence[int]):
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, width, 2**scale, stride=2, padding=2 ** (scale - 1) - 1)
            for scale, width in enumerate(widths, start=1)
        )
        self.attention = ChannelAttention()

    def forward(self, features: Tensor) -> Tensor:
        features = padded(features, 2)
        mixed = torch.cat([convolution(features) for convolution in self.convolutions], dim=1)
        return over_channels(self.attention, mixed)


class ChannelAttention(nn.Module):
    """x + x · a weight for each channel, computed from its mean and its two neighbours' means (ECA).

    Shape:
        (B, …, C) -> the same
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        means = tokens.flatten(1, -2).mean(dim=1)
        weights = self.convolution(means[:, None]).sigmoid()[:, 0]
        return tokens + tokens * weights.reshape(len(weights), *[1] * (tokens.ndim - 2), -1)


class AttentiveMLP(nn.Module):
    """A transformer's MLP with channel attention on its outputs.

    Shape:
        (B, tokens, C) -> the same
    """

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.activation = nn.GELU()
        self.fc2 = nn.Linear(4 * channels, channels)
        self.attention = ChannelAttention()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.attention(self.fc2(self.activation(self.fc1(tokens))))


def _transformer(channels: int, heads: int, window: Sequence[int], index: int, drop_path: float) -> nn.Module:
    block = swin_block(channels, heads, tuple(window), index, drop_path)
    block.mlp = cast(Any, AttentiveMLP(channels))
    return block
