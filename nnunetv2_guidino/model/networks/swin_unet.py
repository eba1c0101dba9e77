"""Swin-Unet (ECCV workshops 2022): a U-Net of Swin transformer blocks, on timm's; 2D."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock
from torch import Tensor, nn

from nnunetv2_guidino.model.encoders.source import EncoderSource
from nnunetv2_guidino.model.networks.building_blocks import (
    Decoder,
    OneOutput,
    channels_first,
    channels_last,
    cropped,
    padded,
    rising,
)
from nnunetv2_guidino.model.networks.timm_weights import Part, load_parts


class SwinUnet(OneOutput):
    """Swin-Unet for patches of any size: tokens that do not fill a window are padded, and the padding is cut off again.

    Args:
        input_channels: The number of the patch's channels.
        num_classes: The number of the output's classes.
        deep_supervision: nnU-Net's switch.
        strides: The strides in nnU-Net's plans.
        width: Channels of the finest stage; each stage doubles them.
        heads: The number of heads of the attention in each stage.
        blocks: The number of blocks in each stage.
        window: Tokens along a side of a window.
        drop_path: The rate of drop path in the encoder's last block; it rises from zero, and the decoder mirrors it.
        pretrained: A folder or a name on the hub with timm's Swin-T or another Swin of this width; None starts at
            random.

    Shape:
        (B, n, H, W) -> (B, classes, H, W)
    """

    published_weights: ClassVar[str | None] = "timm/swin_tiny_patch4_window7_224.ms_in1k"

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool,
        strides: Sequence[Sequence[int]],
        width: int = 96,
        heads: Sequence[int] = (3, 6, 12, 24),
        blocks: Sequence[int] = (2, 2, 2, 2),
        window: int = 7,
        drop_path: float = 0.2,
        pretrained: str | None = None,
    ):
        widths = [width * 2**stage for stage in range(len(heads))]
        super().__init__(strides, widths, pretrained)
        rates = rising(drop_path, sum(blocks))
        stages = [
            nn.Sequential(*(swin_block(dim, count, window, index, rates.pop(0)) for index in range(number)))
            for dim, count, number in zip(widths, heads, blocks, strict=True)
        ]
        self.encoder = SwinEncoder(input_channels, widths, stages)
        rates = rising(drop_path, sum(blocks))
        stages = [
            nn.Sequential(*(swin_block(dim, count, window, index, rates.pop(0)) for index in range(number)))
            for dim, count, number in zip(widths[:-1], heads, blocks, strict=False)
        ]
        self.decoder = SwinDecoder(widths, stages, num_classes, deep_supervision)
        self.apply(_initialise)

    def load_weights(self, folder: Path, name: str) -> EncoderSource:
        """Load the encoder's weights, and the same ones into the decoder's blocks of the same stage."""
        encoder = self.encoder
        parts: list[Part] = [
            (encoder.embedding, "patch_embed.proj."),
            (encoder.embedding_norm, "patch_embed.norm."),
            (encoder.norm, "norm."),
        ]
        parts += [(merging, f"layers.{stage}.downsample.") for stage, merging in enumerate(encoder.mergings, start=1)]
        for stages in (encoder.stages, self.decoder.stages):
            for stage, blocks in enumerate(stages):
                parts += [(block, f"layers.{stage}.blocks.{number}.") for number, block in enumerate(blocks)]
        return load_parts(folder, name, parts, "patch_embed.proj.weight", encoder.embedding.in_channels)

    def encode(self, patch: Tensor) -> list[Tensor]:
        return self.encoder(patch)

    def decode(self, features: list[Tensor], size: Sequence[int]) -> Tensor | list[Tensor]:
        return self.decoder(features, size)


class SwinEncoder(nn.Module):
    """The encoder; it returns the input of each stage and the output of the last.

    Shape:
        (B, n, H, W) -> [(B, width · 2^i, ⌈H / 2^(i + 2)⌉, ⌈W / 2^(i + 2)⌉), finest first]
    """

    def __init__(self, input_channels: int, widths: Sequence[int], stages: Sequence[nn.Module]):
        super().__init__()
        self.embedding = nn.Conv2d(input_channels, widths[0], 4, stride=4)
        self.embedding_norm = nn.LayerNorm(widths[0])
        self.stages = nn.ModuleList(stages)
        self.mergings = nn.ModuleList(PatchMerging(width) for width in widths[:-1])
        self.norm = nn.LayerNorm(widths[-1])

    def forward(self, patch: Tensor) -> list[Tensor]:
        tokens = self.embedding_norm(channels_last(self.embedding(padded(patch, 4))))
        features = []
        for stage, merging in zip(self.stages, self.mergings, strict=False):
            features.append(channels_first(tokens))
            tokens = merging(stage(tokens))
        return [*features, channels_first(self.norm(self.stages[-1](tokens)))]


class SwinDecoder(Decoder):
    """A decoder from the coarsest features up that joins each stage with the encoder's features.

    Shape:
        the features of SwinEncoder -> (B, classes, H, W)
    """

    def __init__(self, widths: Sequence[int], stages: Sequence[nn.Module], num_classes: int, deep_supervision: bool):
        super().__init__(widths[:1], num_classes, deep_supervision, bias=False)
        self.expandings = nn.ModuleList(Expanding(width, width // 2, by=2) for width in widths[1:])
        self.joinings = nn.ModuleList(nn.Linear(2 * width, width) for width in widths[:-1])
        self.stages = nn.ModuleList(stages)
        self.norm = nn.LayerNorm(widths[0])
        self.last_expanding = Expanding(widths[0], widths[0], by=4)

    def forward(self, features: list[Tensor], size: Sequence[int]) -> Tensor | list[Tensor]:
        tokens = channels_last(features[-1])
        for level in reversed(range(len(self.stages))):
            skip = channels_last(features[level])
            expanded = self.expandings[level](tokens)[:, : skip.shape[1], : skip.shape[2]]
            tokens = self.stages[level](self.joinings[level](torch.cat((expanded, skip), dim=-1)))
        pixels = cropped(channels_first(self.last_expanding(self.norm(tokens))), size)
        return self.one_of_list(self.seg_layers[0](pixels))


class Expanding(nn.Module):
    """Enlarge each token to by × by tokens.

    Shape:
        (B, h, w, C) -> (B, h · by, w · by, width)
    """

    def __init__(self, channels: int, width: int, by: int):
        super().__init__()
        self.by = by
        self.expand = nn.Linear(channels, width * by**2, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        cells = self.expand(tokens).unflatten(-1, (self.by, self.by, -1))
        return self.norm(cells.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2))


class SwinBlock(SwinTransformerBlock):
    """timm's block, which does not shift its windows along an axis that one window covers.

    timm decides by a fixed size of the features; here their actual size decides.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        axes = zip(tokens.shape[1:3], self.window_size, self.target_shift_size, strict=True)
        height, width = (0 if side <= window else shift for side, window, shift in axes)
        self.shift_size = (height, width)
        return super().forward(tokens)


def swin_block(channels: int, heads: int, window: int | Sequence[int], index: int, drop_path: float) -> SwinBlock:
    """Build a block for features of any size (B, h, w, C); every second one shifts its windows by half."""
    height, width = (window, window) if isinstance(window, int) else window
    return SwinBlock(
        channels,
        input_resolution=(height, width),  # means nothing when masks are made as they are needed
        num_heads=heads,
        window_size=(height, width),
        shift_size=cast(Any, (height // 2, width // 2) if index % 2 else 0),
        always_partition=True,
        dynamic_mask=True,
        drop_path=drop_path,
    )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
