"""What nnU-Net's targets say, in one form."""

from __future__ import annotations

from typing import NamedTuple

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor


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
