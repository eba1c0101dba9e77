"""The boundary's hinge loss (section 3.2, last lines, where the paper gives no formula)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nnunetv2_guidino.guide.precision import without_autocast
from nnunetv2_guidino.losses.terms import Step, mean_over_gpus

LOGITS_AT_ONCE = 2**22  # of the band's pixels; a tensor that is made of them takes 16 MB


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
    seen = (masks.byte() + 1) * valid  # 1 outside, 2 inside, 0 ignored; 3 is to mean both
    for axis in range(3 if in_plane and masks.ndim == 5 else 2, masks.ndim):
        before, last = seen, masks.shape[axis] - 1
        seen = before.clone()
        seen.narrow(axis, 1, last).bitwise_or_(before.narrow(axis, 0, last))
        seen.narrow(axis, 0, last).bitwise_or_(before.narrow(axis, 1, last))
    return (seen == 3) & valid


def margins(logits: Tensor) -> Tensor:
    """Log-odds of each class of softmax heads against all the others: z_k = l_k - log Σ_{j≠k} exp l_j.

    Shape:
        (n, C) -> the same
    """
    largest, where = logits.max(1, keepdim=True)
    below = logits - largest
    others_of_largest = below.scatter(1, where, -torch.inf).logsumexp(1, keepdim=True)
    # Of all but the largest, the others hold the largest, so that this difference is at least 1.
    others = (1 + others_of_largest.exp() - below.exp().scatter(1, where, 0)).log()
    return below - others.scatter(1, where, others_of_largest)


def _hinges(logits: Tensor, sides: Tensor, exclusive: bool) -> Tensor:
    """Sum of max(0, 1 - y·z) where y, the side of an edge, is 1 or -1; nothing where it is 0.

    Shape:
        logits and sides (n, C) -> scalar
    """
    z = margins(logits.float()) if exclusive else logits.float()
    return (sides.abs() - sides * z).relu().sum()


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
        # Only the thin band. How many pixels it has is the one number for which a GPU's host waits.
        at_edge = band.any(1).nonzero(as_tuple=True)
        pixels, inside, counted = (tensor.movedim(1, -1)[at_edge] for tensor in (logits, masks, band))
        of_channel = dict(zip(channels, inside.char().mul_(2).sub_(1).mul_(counted).unbind(1), strict=True))
        nothing = torch.zeros_like(at_edge[0], dtype=torch.int8)
        sides = torch.stack([of_channel.get(channel, nothing) for channel in range(pixels.shape[1])], dim=1)
        length = max(1, LOGITS_AT_ONCE // pixels.shape[1])
        parts = [*zip(torch.split(pixels, length), torch.split(sides, length), strict=True)]
        sum_of: Callable[..., Tensor] = _hinges
        if len(parts) > 1:  # what the margins are made of is computed again in the backward pass, and not kept
            sum_of = partial(checkpoint, _hinges, use_reentrant=False, preserve_rng_state=False)
        hinges = torch.stack([sum_of(part, side, exclusive) for part, side in parts])
        return mean_over_gpus(hinges.sum(), band.sum())
