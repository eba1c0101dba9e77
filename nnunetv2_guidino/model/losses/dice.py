"""Dice of counted pixels, which training, probe and inspection compute alike."""

from __future__ import annotations

THRESHOLD = 0.5  # from which on a guide says "foreground"


def dice(true_positives: int, false_positives: int, false_negatives: int) -> float:
    """2·TP / (2·TP + FP + FN); NaN where neither prediction nor truth has any foreground."""
    total = 2 * true_positives + false_positives + false_negatives
    return 2 * true_positives / total if total else float("nan")
