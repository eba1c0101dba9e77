"""Compute the boundary's hinge loss (section 3.2, last lines, where the paper gives no formula)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nnunetv2_guidino.model.guide.autocast import without_autocast
from nnunetv2_guidino.model.losses.terms import Step, mean_over_gpus

LOGITS_AT_ONCE = 2**22  # logits of the band that are processed together; each tensor of that many takes 16 MB


def boundary_term(step: Step) -> Tensor:
    """Return the boundary's loss of a step on the finest segmentation, a scalar (section 3.2)."""
    masks, valid = step.annotation
    regions = step.label_manager.has_regions
    # nnU-Net has one head for each region, or one for each label at the index of its value.
    channels = range(masks.shape[1]) if regions else step.label_manager.foreground_labels
    band = boundary_band(masks, valid, step.in_plane)
    return boundary_loss(step.segmentations[0], masks, band, channels, exclusive=not regions)


def boundary_band(masks: Tensor, valid: Tensor, in_plane: bool = False) -> Tensor:
    """Return the pixels on both sides of each mask's edge: dilation minus erosion with a kernel of 3 along each axis.

    An ignored pixel is in no band, and an ignored neighbour puts no pixel into a band.

    Args:
        masks: Masks of the classes or regions.
        valid: False for ignored pixels.
        in_plane: If True, the kernel is 1 along the first axis of volumes.

    Shape:
        masks (B, K, …) and valid (B, 1, …) boolean -> (B, K, …) boolean
    """
    # Bits of what lies in the kernel: 1 outside, 2 inside, 3 both, 0 ignored only.
    seen = (masks.byte() + 1) * valid
    for axis in range(3 if in_plane and masks.ndim == 5 else 2, masks.ndim):
        before, last = seen, masks.shape[axis] - 1
        seen = before.clone()
        seen.narrow(axis, 1, last).bitwise_or_(before.narrow(axis, 0, last))
        seen.narrow(axis, 0, last).bitwise_or_(before.narrow(axis, 1, last))
    return (seen == 3) & valid


def margins(logits: Tensor) -> Tensor:
    """Return the log-odds of each softmax class against all others: z_k = l_k - log Σ_{j≠k} exp l_j.

    Shape:
        logits l (n, C) -> z (n, C)
    """
    largest, where = logits.max(1, keepdim=True)
    below = logits - largest
    others_of_largest = below.scatter(1, where, -torch.inf).logsumexp(1, keepdim=True)
    # For every class but the largest, the others include the largest with exp(0) = 1: their sum is at least 1.
    others = (1 + others_of_largest.exp() - below.exp().scatter(1, where, 0)).log()
    return below - others.scatter(1, where, others_of_largest)


def _hinges(logits: Tensor, sides: Tensor, exclusive: bool) -> Tensor:
    """Return the sum of max(0, 1 - y·z), where y is 1 inside an edge, -1 outside, and 0 for logits that do not count.

    Shape:
        logits and sides (n, C) -> scalar
    """
    z = margins(logits.float()) if exclusive else logits.float()
    return (sides.abs() - sides * z).relu().sum()


def boundary_loss(logits: Tensor, masks: Tensor, band: Tensor, channels: Sequence[int], exclusive: bool) -> Tensor:
    """Return the hinge loss max(0, 1 - y·z) with y = ±1 and the log-odds z, averaged over all masks' bands.

    The loss and its gradient are zero if no mask has an edge. Section 3.2 names the loss; its formula is ours.

    Args:
        logits: Logits of the finest segmentation.
        masks: Masks of the classes or regions.
        band: Pixels at the edges, as boundary_band returns them.
        channels: Channel of the logits that belongs to each mask.
        exclusive: True for softmax heads, False for sigmoid heads.

    Shape:
        logits (B, C, …), masks and band (B, K, …) boolean -> scalar
    """
    with without_autocast(logits):
        # Only the thin band is used. The number of its pixels is the one value that the host waits for on a GPU.
        at_edge = band.any(1).nonzero(as_tuple=True)
        pixels, inside, counted = (tensor.movedim(1, -1)[at_edge] for tensor in (logits, masks, band))
        of_channel = dict(zip(channels, inside.char().mul_(2).sub_(1).mul_(counted).unbind(1), strict=True))
        nothing = torch.zeros_like(at_edge[0], dtype=torch.int8)
        sides = torch.stack([of_channel.get(channel, nothing) for channel in range(pixels.shape[1])], dim=1)
        length = max(1, LOGITS_AT_ONCE // pixels.shape[1])
        parts = [*zip(torch.split(pixels, length), torch.split(sides, length), strict=True)]
        sum_of: Callable[..., Tensor] = _hinges
        if len(parts) > 1:  # the backward pass computes the margins again, so that no part keeps its tensors
            sum_of = partial(checkpoint, _hinges, use_reentrant=False, preserve_rng_state=False)
        hinges = torch.stack([sum_of(part, side, exclusive) for part, side in parts])
        return mean_over_gpus(hinges.sum(), band.sum())
