"""The boundary's hinge loss (section 3.2, last lines, where the paper gives no formula)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nnunetv2_guidino.guide.precision import without_autocast
from nnunetv2_guidino.losses.terms import Step, mean_over_gpus


def boundary_term(step: Step) -> Tensor:
    """The boundary's loss of a step, on the finest segmentation."""
    masks, valid = step.annotation
    regions = step.label_manager.has_regions
    # nnU-Net's heads: one for each region; one for each label, at its value.
    channels = range(masks.shape[1]) if regions else step.label_manager.foreground_labels
    band = boundary_band(masks, valid, step.in_plane)
    return boundary_loss(step.segmentations[0], masks, band, channels, exclusive=not regions)


def boundary_band(masks: Tensor, valid: Tensor, in_plane: bool = False) -> Tensor:
    """Dilation minus erosion with a kernel of 3 along each axis: the pixels on both sides of each mask's edge.

    Ignored pixels are in no band, and no pixel is in one for having an ignored neighbour.

    Args:
        in_plane: The kernel is 1 along the first axis of volumes.

    Shape:
        masks (B, K, …) and valid (B, 1, …) boolean -> (B, K, …) boolean
    """

    def dilated(mask: Tensor) -> Tensor:
        pool, kernel = (F.max_pool2d, (3, 3)) if mask.ndim == 4 else (F.max_pool3d, (1 if in_plane else 3, 3, 3))
        return pool(mask.float(), kernel, stride=1, padding=[side // 2 for side in kernel]) > 0

    return dilated(masks & valid) & dilated(~masks & valid) & valid


def margins(logits: Tensor, channel: int, exclusive: bool) -> Tensor:
    """Log-odds of one class against all the others (softmax heads), or of one region (sigmoid heads).

    Shape:
        logits (n, channels) -> (n,)
    """
    if not exclusive:
        return logits[:, channel]
    others = torch.cat((logits[:, :channel], logits[:, channel + 1 :]), dim=1)
    return logits[:, channel] - others.logsumexp(1)


def boundary_loss(logits: Tensor, masks: Tensor, band: Tensor, channels: Sequence[int], exclusive: bool) -> Tensor:
    """Hinge loss max(0, 1 - y·z) with y = ±1 and the log-odds z, averaged over all masks' bands.

    Zero, with zero gradient, where no mask has an edge.

    Args:
        channels: The logits' channel of each mask.
        exclusive: Softmax heads, otherwise sigmoid heads.

    Shape:
        logits (B, C, …), masks and band (B, K, …) boolean -> scalar
    """
    with without_autocast(logits):
        channels_last = logits.movedim(1, -1)
        hinges = []
        for k, channel in enumerate(channels):
            # Only the few pixels of the band: the margins of all would take as much memory as the logits, per class.
            at_edge = band[:, k].nonzero(as_tuple=True)
            z = margins(channels_last[at_edge].float(), channel, exclusive)
            hinges.append(torch.where(masks[:, k][at_edge], 1 - z, 1 + z).relu().sum())
        return mean_over_gpus(torch.stack(hinges).sum(), band.sum())
