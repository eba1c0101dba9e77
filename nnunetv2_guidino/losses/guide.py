"""The guide's losses (equation 3, and a Dice loss), and how well the guide does."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nnunetv2_guidino.dice import THRESHOLD
from nnunetv2_guidino.guide.precision import without_autocast
from nnunetv2_guidino.guide.resizing import interpolate
from nnunetv2_guidino.losses.target import Annotation, TokenTarget
from nnunetv2_guidino.losses.terms import Step, mean_over_gpus, sum_over_gpus

SMOOTH = 1.0  # tokens: where there is no foreground, the less of a guide the better, and 0 is perfect


def guide_term(step: Step) -> Tensor:
    """The guide's cross-entropy of a step."""
    return guide_loss(step.guide_logits, step.guide_target)


def guide_dice_term(step: Step) -> Tensor:
    """The guide's Dice loss of a step."""
    return guide_dice_loss(step.guide_logits, step.guide_target)


def guide_loss(logits: Tensor, target: TokenTarget) -> Tensor:
    """Binary cross-entropy between each guide and its mask's share of each token's valid area (equation 3).

    A token counts as much as is valid of it, so that this is the mean over all valid pixels. Computed in float32 and on
    logits: a guide that is 0 or 1 but for rounding would have no gradient left.

    Shape:
        logits (B, G, …) at the tokens' resolution -> scalar
    """
    share, weight = target
    with without_autocast(logits):
        entropy = F.binary_cross_entropy_with_logits(logits.float(), share, reduction="none")
        return mean_over_gpus((weight * entropy).sum(), logits.shape[1] * weight.sum())


def guide_dice_loss(logits: Tensor, target: TokenTarget) -> Tensor:
    """1 - the soft Dice of each guide and its mask's share of each token's valid area, over the whole batch.

    The cross-entropy alone is small wherever a guide is near zero on a small foreground, and is slow to leave there;
    nnU-Net adds a Dice loss to its own for that. Computed in float32.

    Shape:
        As guide_loss.
    """
    share, weight = target
    with without_autocast(logits):
        guide = weight * logits.float().sigmoid()
        but_guides = [0, *range(2, logits.ndim)]
        overlap = sum_over_gpus((guide * share).sum(but_guides))
        size = sum_over_gpus((guide + weight * share).sum(but_guides))
        return 1 - ((2 * overlap + SMOOTH) / (size + SMOOTH)).mean()


def guide_counts(guide: Tensor, annotation: Annotation) -> dict[str, Tensor]:
    """True positives, false positives and false negatives of the guide at threshold 0.5, at the image's resolution.

    Shape:
        guide (B, 1, …) in [0, 1] at the tokens' resolution -> scalars
    """
    truth = annotation.foreground
    prediction = (interpolate(guide.float(), truth.shape[2:]) > THRESHOLD) & annotation.valid
    return {
        "guide_tp": (prediction & truth).sum(),
        "guide_fp": (prediction & ~truth).sum(),
        "guide_fn": (~prediction & truth).sum(),
    }
