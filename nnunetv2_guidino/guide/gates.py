"""How a guide acts on a feature map of the segmentation network (section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

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
    """Acts on one feature map; a network has one for each that is gated.

    Shape:
        feature (B, C, …), guide (B, 1, …) in [0, 1] at the tokens' resolution -> as feature
    """

    def forward(self, feature: Tensor, guide: Tensor) -> Tensor:
        return feature * self.factor(guide_at(guide, feature.shape[2:])).to(feature.dtype)

    def factor(self, guide: Tensor) -> Tensor:
        """What the feature is multiplied by, given the guide at its size."""
        raise NotImplementedError


class Product(Gate):
    """feature · guide, as in the paper: nothing passes where the guide is near zero."""

    def factor(self, guide: Tensor) -> Tensor:
        return guide


class Residual(Gate):
    """feature · (1 + guide): where the guide is silent, the feature passes as it is."""

    def factor(self, guide: Tensor) -> Tensor:
        return 1 + guide


GATINGS: dict[str, type[Gate]] = {"product": Product, "residual": Residual}
