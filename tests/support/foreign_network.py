"""A network of somebody else's, as plans may name it: nothing in it can be gated but its input."""

from __future__ import annotations

from torch import Tensor, nn


class Convolution(nn.Module):
    """One convolution from image to classes."""

    def __init__(self, input_channels: int, num_classes: int, deep_supervision: bool):
        super().__init__()
        self.deep_supervision = deep_supervision
        self.convolution = nn.Conv2d(input_channels, num_classes, 3, padding=1)

    def forward(self, patch: Tensor) -> Tensor:
        return self.convolution(patch)
