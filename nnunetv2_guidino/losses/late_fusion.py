"""Which weight of late fusion serves best, counted while nnU-Net validates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nnunetv2_guidino.dice import dice
from nnunetv2_guidino.guide.gates import guide_at
from nnunetv2_guidino.guide.late_fusion import WEIGHTS, fused
from nnunetv2_guidino.losses.terms import Step


def fusion_counts(step: Step) -> Tensor:
    """True positives, false positives and false negatives of the finest segmentation, fused with each weight.

    Shape:
        (weights, 3, classes)
    """
    segmentation, (truth, valid) = step.segmentations[0], step.annotation
    guide_logits = guide_at(step.guide_logits, segmentation.shape[2:])
    counts = []
    for weight in WEIGHTS:
        predicted = _masks(fused(segmentation, guide_logits, weight, truth.shape[1]), step) & valid
        each = torch.stack([predicted & truth, predicted & ~truth, ~predicted & truth])
        counts.append(each.sum(dim=(1, *range(3, each.ndim))))
    return torch.stack(counts)


def _masks(logits: Tensor, step: Step) -> Tensor:
    """As nnU-Net makes them of logits: (B, heads, …) -> (B, classes, …)."""
    if step.label_manager.has_regions:
        return logits > 0
    labels = logits.argmax(1, keepdim=True)
    return torch.cat([labels == label for label in step.label_manager.foreground_labels], dim=1)


def best_weight(counts: npt.NDArray[np.int64]) -> int | None:
    """The index in WEIGHTS with the highest pseudo Dice, the smallest of those that are equal.

    None where there is no foreground, so that nothing is known of any.

    Shape:
        counts (weights, 3, classes), summed over an epoch's steps
    """
    true_positives, _, false_negatives = counts[0]
    if not (true_positives + false_negatives).any():
        return None
    return int(np.argmax([np.nanmean([dice(*of_class) for of_class in of_weight.T]) for of_weight in counts]))
