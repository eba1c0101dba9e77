"""What nnU-Net's targets say, in one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor

from nnunetv2_guidino.guide.precision import without_autocast
from nnunetv2_guidino.guide.resizing import area_average


class Annotation(NamedTuple):
    """What a target says about each pixel or voxel, whatever its form.

    Shape:
        masks (B, K, …) boolean, one for each foreground class or region; valid (B, 1, …) boolean, False where ignored
    """

    masks: Tensor
    valid: Tensor

    @property
    def foreground(self) -> Tensor:
        """(B, 1, …) boolean: any class, or the union of the regions."""
        return self.masks.any(1, keepdim=True)


class TokenTarget(NamedTuple):
    """What guides are to say at the tokens' resolution.

    Shape:
        share (B, G, …), each mask's share of each token's valid area; weight (B, 1, …), what is valid of the token
    """

    share: Tensor
    weight: Tensor


def token_target(masks: Tensor, valid: Tensor, size: Sequence[int]) -> TokenTarget:
    """The target of guides of that size, in float32.

    Shape:
        masks (B, G, …) and valid (B, 1, …), boolean, at the image's resolution
    """
    with without_autocast(valid):
        weight = area_average(valid.float(), size)
        smallest = torch.finfo(weight.dtype).tiny
        share = area_average((masks & valid).float(), size) / weight.clamp(min=smallest)
    return TokenTarget(share.clamp(max=1), weight)


def read_target(target: Tensor, label_manager: LabelManager) -> Annotation:
    """Read a target in any of nnU-Net's forms.

    Shape:
        target (B, 1, …) of labels; with regions (B, K, …), and the ignore label's mask as one more channel behind them
    """
    if label_manager.has_regions:
        regions = len(label_manager.foreground_regions)
        masks, ignored = target[:, :regions] > 0, target[:, regions:] > 0
    else:
        masks = torch.cat([target == label for label in label_manager.foreground_labels], dim=1)
        ignored = target == label_manager.ignore_label if label_manager.has_ignore_label else target[:, :0] > 0
    valid = ~ignored.any(1, keepdim=True)
    return Annotation(masks & valid, valid)
