"""Compute the guide's losses (equation 3 and a Dice loss) and the counts for the guide's Dice."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nnunetv2_guidino.model.guide.autocast import without_autocast
from nnunetv2_guidino.model.guide.resizing import interpolate
from nnunetv2_guidino.model.losses.dice import THRESHOLD
from nnunetv2_guidino.model.losses.target import Annotation, TokenTarget
from nnunetv2_guidino.model.losses.terms import Step, mean_over_gpus, sum_over_gpus

SMOOTH = 1.0  # in tokens; without foreground, the loss falls with the guide, to 0 for a guide of 0


def guide_term(step: Step) -> Tensor:
    """Return the guide's cross-entropy of a step (equation 3), a scalar."""
    return guide_loss(step.guide_logits, step.guide_target)


def guide_dice_term(step: Step) -> Tensor:
    """Return the guide's Dice loss of a step, a scalar."""
    return guide_dice_loss(step.guide_logits, step.guide_target)


def guide_loss(logits: Tensor, target: TokenTarget) -> Tensor:
    """Return the binary cross-entropy between each guide and its mask's share of each token's valid area (equation 3).

    The valid fraction of a token is its weight, so the result is the mean over all valid pixels. The function computes
    in float32 and on logits, because a guide that rounds to 0 or 1 has no gradient.

    Shape:
        logits (B, G, …) at the tokens' resolution -> scalar
    """
    share, weight = target
    with without_autocast(logits):
        entropy = F.binary_cross_entropy_with_logits(logits.float(), share, reduction="none")
        return mean_over_gpus((weight * entropy).sum(), logits.shape[1] * weight.sum())


def guide_dice_loss(logits: Tensor, target: TokenTarget) -> Tensor:
    """Return 1 - the soft Dice of each guide and its mask's share of each token's valid area, over the whole batch.

    On a small foreground, the cross-entropy alone is small for a guide near zero and leaves it slowly. nnU-Net adds a
    Dice loss to its cross-entropy for the same reason. The function computes in float32.

    Shape:
        logits (B, G, …) at the tokens' resolution -> scalar
    """
    share, weight = target
    with without_autocast(logits):
        guide = weight * logits.float().sigmoid()
        but_guides = [0, *range(2, logits.ndim)]
        overlap = sum_over_gpus((guide * share).sum(but_guides))
        size = sum_over_gpus((guide + weight * share).sum(but_guides))
        return 1 - ((2 * overlap + SMOOTH) / (size + SMOOTH)).mean()


def guide_counts(guide: Tensor, annotation: Annotation) -> dict[str, Tensor]:
    """Count true positives, false positives and false negatives of the guide, thresholded at 0.5, in valid pixels.

    Shape:
        guide (B, 1, …) in [0, 1] at the tokens' resolution, which is interpolated to the image's -> scalars
    """
    truth = annotation.foreground
    prediction = (interpolate(guide.float(), truth.shape[2:]) > THRESHOLD) & annotation.valid
    return {
        "guide_tp": (prediction & truth).sum(),
        "guide_fp": (prediction & ~truth).sum(),
        "guide_fn": (~prediction & truth).sum(),
    }
