"""The guide's loss (equation 3), and how well the guide does."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nnunetv2_guidino.dice import THRESHOLD
from nnunetv2_guidino.guide.precision import without_autocast
from nnunetv2_guidino.guide.resizing import area_average, interpolate
from nnunetv2_guidino.losses.target import Annotation
from nnunetv2_guidino.losses.terms import Step, mean_over_gpus


def guide_term(step: Step) -> Tensor:
    """The guide's loss of a step: one guide means the foreground, several mean the classes or regions."""
    masks, valid = step.annotation
    if step.guide_logits.shape[1] == 1:
        masks = step.annotation.foreground
    return guide_loss(step.guide_logits, masks, valid)


def guide_loss(logits: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy between each guide and its mask's share of each token's valid area (equation 3).

    A token counts as much as is valid of it, so that this is the mean over all valid pixels. Computed in float32 and on
    logits: a guide that is 0 or 1 but for rounding would have no gradient left.

    Shape:
        logits (B, G, …) at the tokens' resolution, masks (B, G, …) and valid (B, 1, …) boolean at the image's -> scalar
    """
    with without_autocast(logits):
        tokens = logits.shape[2:]
        weights = area_average(valid.float(), tokens)
        smallest = torch.finfo(weights.dtype).tiny
        share = area_average((masks & valid).float(), tokens) / weights.clamp(min=smallest)
        entropy = F.binary_cross_entropy_with_logits(logits.float(), share.clamp(max=1), reduction="none")
        return mean_over_gpus((weights * entropy).sum(), logits.shape[1] * weights.sum())


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
