"""Define how a guide acts on a feature map of the segmentation network (section 3.1).

A gate is a subclass of Gate, here or in a file of its own, with a line in lists.GATES.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nnunetv2_guidino.model.guide.resizing import area_average, interpolate


def guide_at(guide: Tensor, size: Sequence[int]) -> Tensor:
    """Resize the guide to a feature's size: average along axes where the feature is coarser, interpolate along others.

    Shape:
        (B, 1, …) -> (B, 1, *size)
    """
    coarser = [min(sides) for sides in zip(size, guide.shape[2:], strict=True)]
    return interpolate(area_average(guide, coarser), size)


class Gate(nn.Module):
    """Gate one feature map with a guide. A network has one gate for each gated feature, so a gate may have parameters.

    A subclass implements `factor`, or `act` if it does more than multiply. nnU-Net trains the gate's parameters with
    the network and stores them in its checkpoints.

    Args:
        channels: C of the feature; None if it is unknown, which cannot happen where `needs_channels` is True.

    Shape:
        feature (B, C, …), guide (B, 1, …) in [0, 1] at the tokens' resolution -> as feature
    """

    needs_channels: ClassVar[bool] = False

    def __init__(self, channels: int | None = None):
        super().__init__()
        self.channels = channels

    def forward(self, feature: Tensor, guide: Tensor) -> Tensor:
        return self.act(feature, guide_at(guide, feature.shape[2:]).to(feature.dtype))

    def act(self, feature: Tensor, guide: Tensor) -> Tensor:
        """Gate the feature with a guide of the same size.

        Shape:
            (B, C, …), (B, 1, …) -> (B, C, …)
        """
        return feature * self.factor(guide)

    def factor(self, guide: Tensor) -> Tensor:
        """Return the factor that multiplies the feature.

        Shape:
            (B, 1, …) at the feature's size -> (B, 1 or C, …)
        """
        raise NotImplementedError


class Product(Gate):
    """Multiply feature · guide, as in the paper: nothing passes where the guide is near zero."""

    def factor(self, guide: Tensor) -> Tensor:
        return guide


class Residual(Gate):
    """Multiply feature · (1 + guide): where the guide is zero, the feature passes unchanged."""

    def factor(self, guide: Tensor) -> Tensor:
        return 1 + guide


class Blend(Gate):
    """Multiply feature · (1 - s + s · guide), between identity and product; each channel learns its s, starting at ½.

    While the guide is near zero everywhere, features pass at half their size. When it has found the foreground,
    channels may close.
    """

    needs_channels = True

    def __init__(self, channels: int):
        super().__init__(channels)
        self.logits = nn.Parameter(torch.zeros(channels))

    def act(self, feature: Tensor, guide: Tensor) -> Tensor:
        share = self.logits.sigmoid().to(feature.dtype).reshape(-1, *[1] * (guide.ndim - 2))
        gated: Tensor = _Blended.apply(feature, guide, share)
        return gated


class _Blended(torch.autograd.Function):
    """Compute Blend with as few tensors of the feature's size as possible, since they cost a gate's memory and time.

    Autograd would keep the factor for the backward pass, which can compute it again cheaply.
    """

    @staticmethod
    def forward(ctx: Any, feature: Tensor, guide: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(feature, guide, share)
        return torch.addcmul(1 - share, share, guide).mul_(feature)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        feature, guide, share = ctx.saved_tensors
        # The buffer holds gradient · feature first, and the feature's gradient at the end.
        buffer = gradient * feature
        of_factor = buffer.flatten(2)
        of_guide = share.flatten() @ of_factor
        of_share = (of_factor @ (guide - 1).flatten(2).transpose(1, 2)).sum(dim=0)
        of_feature = torch.addcmul(1 - share, share, guide, out=buffer).mul_(gradient)
        return of_feature, of_guide.reshape(guide.shape), of_share.reshape(share.shape)
