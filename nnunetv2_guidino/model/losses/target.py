"""Convert nnU-Net's targets to one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor

from nnunetv2_guidino.model.guide.autocast import without_autocast
from nnunetv2_guidino.model.guide.resizing import area_average


class Annotation(NamedTuple):
    """A target as masks, for labels and regions alike.

    Shape:
        masks (B, K, …) boolean, one for each foreground class or region
        valid (B, 1, …) boolean, False for ignored pixels
    """

    masks: Tensor
    valid: Tensor

    @property
    def foreground(self) -> Tensor:
        """Return the union of all classes or regions, (B, 1, …) boolean."""
        return self.masks.any(1, keepdim=True)


class TokenTarget(NamedTuple):
    """The target of the guides at the tokens' resolution.

    Shape:
        share (B, G, …), the fraction of each token's valid area that each mask covers
        weight (B, 1, …), the fraction of each token's area that is valid
    """

    share: Tensor
    weight: Tensor


def token_target(masks: Tensor, valid: Tensor, size: Sequence[int]) -> TokenTarget:
    """Return the target, in float32, of guides of the given size.

    Shape:
        masks (B, G, …) and valid (B, 1, …), boolean, at the image's resolution -> (B, G, *size) and (B, 1, *size)
    """
    with without_autocast(valid):
        weight = area_average(valid.float(), size)
        smallest = torch.finfo(weight.dtype).tiny  # tokens without a valid pixel have share 0 and weight 0
        share = area_average((masks & valid).float(), size) / weight.clamp(min=smallest)
    return TokenTarget(share.clamp(max=1), weight)


def read_target(target: Tensor, label_manager: LabelManager) -> Annotation:
    """Read a target in any of nnU-Net's forms.

    Shape:
        target (B, 1, …) of labels, or (B, K, …) of regions, where the ignore label's mask is one more, last channel
    """
    if label_manager.has_regions:
        regions = len(label_manager.foreground_regions)
        masks, ignored = target[:, :regions] > 0, target[:, regions:] > 0
    else:
        masks = torch.cat([target == label for label in label_manager.foreground_labels], dim=1)
        ignored = target == label_manager.ignore_label if label_manager.has_ignore_label else target[:, :0] > 0
    valid = ~ignored.any(1, keepdim=True)
    return Annotation(masks & valid, valid)
