"""The least that follows the contract of an architecture: one output, 2D, and a feature to gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from nnunetv2_guidino.model.networks.contract import Architecture, Description, strides_for


class Decoder(nn.Module):
    """nnU-Net sets its deep_supervision; the one output is a list of one while that is on."""

    def __init__(self, width: int, num_classes: int, deep_supervision: bool):
        super().__init__()
        self.deep_supervision = deep_supervision
        self.seg_layers = nn.ModuleList([nn.Conv2d(width, num_classes, 1)])

    def forward(self, feature: Tensor, size: Sequence[int]) -> Tensor | list[Tensor]:
        logits = F.interpolate(self.seg_layers[0](feature), size=tuple(size), mode="bilinear")
        return [logits] if self.deep_supervision else logits


class TinyArchitecture(Architecture):
    """One convolution down, one up.

    Args:
        strides: For nnU-Net, which reads them in the plans.
        width: Channels of its one feature.
    """

    dimensions = (2,)

    def __init__(self, input_channels: int, num_classes: int, deep_supervision: bool, strides: Any, width: int):
        super().__init__()
        self.width = width
        self.convolution = nn.Conv2d(input_channels, width, 3, stride=4, padding=1)
        self.decoder = Decoder(width, num_classes, deep_supervision)

    @classmethod
    def planned(cls, configuration: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
        return {"strides": [[1, 1]] * strides_for(outputs=1), "width": 8, **settings}

    @property
    def description(self) -> Description:
        return Description("TinyArchitecture", outputs=1, divisor=(4, 4), features=(self.width,))

    def encode(self, patch: Tensor) -> list[Tensor]:
        return [torch.relu(self.convolution(patch))]

    def decode(self, features: list[Tensor], size: Sequence[int]) -> Tensor | list[Tensor]:
        return self.decoder(features[0], size)
