"""How a guide acts on a feature map of the segmentation network (section 3.1): the contract, and forms that follow it.

A form is a subclass of Gate here or in a file of its own, with its line in lists.GATINGS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nnunetv2_guidino.guide.resizing import area_average, interpolate


def guide_at(guide: Tensor, size: Sequence[int]) -> Tensor:
    """The guide at a feature's size: averaged along the axes where the feature is coarser, else interpolated.

    Shape:
        (B, 1, …) -> (B, 1, *size)
    """
    coarser = [min(sides) for sides in zip(size, guide.shape[2:], strict=True)]
    return interpolate(area_average(guide, coarser), size)


class Gate(nn.Module):
    """Acts on one feature map; a network has one for each that is gated, so that it may hold parameters for it.

    A form gives `factor`, or `gate` if it does more than multiply. Its parameters are trained with the network and
    stored in its checkpoints.

    Args:
        channels: C of the feature. Known whenever the form says that it `needs_channels`; else it may be None.

    Shape:
        feature (B, C, …), guide (B, 1, …) in [0, 1] at the tokens' resolution -> as feature
    """

    needs_channels: ClassVar[bool] = False

    def __init__(self, channels: int | None = None):
        super().__init__()
        self.channels = channels

    def forward(self, feature: Tensor, guide: Tensor) -> Tensor:
        return self.gate(feature, guide_at(guide, feature.shape[2:]).to(feature.dtype))

    def gate(self, feature: Tensor, guide: Tensor) -> Tensor:
        """The feature, gated by a guide of its size.

        Shape:
            (B, C, …), (B, 1, …) -> (B, C, …)
        """
        return feature * self.factor(guide)

    def factor(self, guide: Tensor) -> Tensor:
        """What the feature is multiplied by.

        Shape:
            (B, 1, …) at the feature's size -> (B, 1 or C, …)
        """
        raise NotImplementedError


class Product(Gate):
    """feature · guide, as in the paper: nothing passes where the guide is near zero."""

    def factor(self, guide: Tensor) -> Tensor:
        return guide


class Residual(Gate):
    """feature · (1 + guide): where the guide is silent, the feature passes as it is."""

    def factor(self, guide: Tensor) -> Tensor:
        return 1 + guide


class Blend(Gate):
    """feature · (1 - s + s · guide): between the identity and the product, with an s that each channel learns from ½.

    Where a guide has not found anything yet, features pass at half their size; once it has, channels may close.
    """

    needs_channels = True

    def __init__(self, channels: int):
        super().__init__(channels)
        self.logits = nn.Parameter(torch.zeros(channels))

    def gate(self, feature: Tensor, guide: Tensor) -> Tensor:
        share = self.logits.sigmoid().to(feature.dtype).reshape(-1, *[1] * (guide.ndim - 2))
        gated: Tensor = _Blended.apply(feature, guide, share)
        return gated


class _Blended(torch.autograd.Function):
    """Blend with the least of tensors as large as the feature, at which memory and time of a gate are spent.

    Left to autograd, the factor would be kept for the backward pass, where it is cheap to make again.
    """

    @staticmethod
    def forward(ctx: Any, feature: Tensor, guide: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(feature, guide, share)
        return torch.addcmul(1 - share, share, guide).mul_(feature)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        feature, guide, share = ctx.saved_tensors
        buffer = gradient * feature
        of_factor = buffer.flatten(2)
        of_guide = share.flatten() @ of_factor
        of_share = (of_factor @ (guide - 1).flatten(2).transpose(1, 2)).sum(dim=0)
        of_feature = torch.addcmul(1 - share, share, guide, out=buffer).mul_(gradient)
        return of_feature, of_guide.reshape(guide.shape), of_share.reshape(share.shape)
