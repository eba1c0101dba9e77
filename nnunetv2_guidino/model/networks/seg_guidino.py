"""Seg-GuiDINO's network and its partner without a guide: a light decoder on the last layer's tokens; 2D."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_guidino.model.networks.building_blocks import Decoder, resized
from nnunetv2_guidino.model.networks.token_network import TokenNetwork, depth_of


class SegGuiDINO(TokenNetwork):
    """Seg-GuiDINO's network: it projects the last layer's tokens and decodes them; a guide gates the projected tokens.

    Without a guide, its projection and the decoder's first convolution are one linear map. So compare a guided network
    with SegGuiDINOPartner.

    Args:
        width: Channels of the projected tokens, a multiple of 32.
        dropout: The rate of dropout of whole channels.
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
        layers: Sequence[int] = (12,),
        width: int = 256,
        dropout: float = 0.0,
        tuning: str = "frozen",
        lora: Mapping[str, Any] | None = None,
        min_input_size: int = 224,
        pretrained: str | None = None,
    ):
        super().__init__(
            input_channels, num_classes, deep_supervision, strides,
            encoder_config, normalization_schemes, layers, [width], tuning, lora, min_input_size, pretrained,
        )  # fmt: skip
        self.projection = self.projected(self.token_encoder.channels, width)
        self.decoder = TokenDecoder(width, dropout, num_classes, deep_supervision)

    @classmethod
    def default_layers(cls, encoder_config: Mapping[str, Any]) -> list[int]:
        """Return the last block alone."""
        return [depth_of(encoder_config)]

    def projected(self, channels: int, width: int) -> nn.Module:
        """Return the module that makes features of tokens."""
        return nn.Conv2d(channels, width, 3, padding=1)

    def features_of(self, maps: list[Tensor]) -> list[Tensor]:
        return [self.projection(torch.cat(maps, dim=1))]


class SegGuiDINOPartner(SegGuiDINO):
    """Seg-GuiDINO's fair partner without a guide: a 1×1 convolution with a norm and an activation projects tokens.

    Args:
        encoder_config: All settings are SegGuiDINO's.

    Shape:
        (B, n, H, W) -> (B, classes, H, W)
    """

    def projected(self, channels: int, width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(channels, width, 1), nn.GroupNorm(32, width), nn.GELU())


class TokenDecoder(Decoder):
    """A convolution, a norm, an activation and the head, at the tokens' size.

    Shape:
        [(B, width, h, w)] -> (B, classes, H, W)
    """

    def __init__(self, width: int, dropout: float, num_classes: int, deep_supervision: bool):
        super().__init__([width], num_classes, deep_supervision)
        self.convolutions = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(32, width), nn.GELU(), nn.Dropout2d(dropout)
        )

    def forward(self, features: list[Tensor], size: Sequence[int]) -> Tensor | list[Tensor]:
        logits = self.seg_layers[0](self.convolutions(features[0]))
        return self.one_of_list(resized(logits, size))
