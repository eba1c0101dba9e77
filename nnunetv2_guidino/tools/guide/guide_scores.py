"""Scores of a guide: Dice and area under the ROC curve; from a histogram, Dice at any threshold and calibration error.

docs/reference/metrics.md holds the definitions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from nnunetv2_guidino.model.losses.dice import THRESHOLD, dice

Array = npt.NDArray[Any]

BINS = 20
THRESHOLDS = np.arange(1, BINS) / BINS  # 0.05, 0.10, …, 0.95: the edges of the bins
HALF = list(THRESHOLDS).index(THRESHOLD)


class Histogram(NamedTuple):
    """A histogram of a guide's values in one or several cases; bin k holds the values v with k/20 < v ≤ (k + 1)/20.

    Shape:
        (BINS,) each
    """

    pixels: Array  # their number
    foreground: Array  # the number of pixels that are foreground in the reference
    confidence: Array  # the sum of the values

    def __add__(self, other: object) -> Histogram:
        if not isinstance(other, Histogram):
            return NotImplemented
        return Histogram(*(a + b for a, b in zip(self, other, strict=True)))

    def dice(self) -> Array:
        """Return Dice of the pixels above each threshold; NaN if neither guide nor reference has any."""
        predicted, hits = (np.cumsum(counts[::-1])[::-1][1:] for counts in (self.pixels, self.foreground))
        missed = self.foreground.sum() - hits
        return np.array([dice(*map(int, counts)) for counts in zip(hits, predicted - hits, missed, strict=True)])

    def calibration_error(self) -> float:
        """Return the expected calibration error: the mean distance between a bin's share of foreground and its mean
        value, weighted by the bins' pixels; NaN without a pixel.
        """
        total = self.pixels.sum()
        return float(np.abs(self.foreground - self.confidence).sum() / total) if total else float("nan")


def dice_of_masks(mask: Array, truth: Array) -> float:
    """Return Dice of two masks of the same shape; NaN if both are empty."""
    return dice(*(int(pixels.sum()) for pixels in (mask & truth, mask & ~truth, ~mask & truth)))


def guide_scores(guide: Array, truth: Array) -> dict[str, float]:
    """Return Dice of the guide at threshold 0.5, and the area under its ROC curve over all pixels.

    Dice is NaN if both masks are empty, the AUC if all pixels are of one kind.

    Shape:
        guide (n,) in [0, 1], truth (n,) of bool
    """
    auc = float(roc_auc_score(truth, guide)) if truth.any() and not truth.all() else float("nan")
    return {"dice": dice_of_masks(guide > THRESHOLD, truth), "auc": auc}


def histogram(guide: Array, truth: Array, valid: Array) -> Histogram:
    """Count slice by slice, so that a volume takes hardly any memory beyond its own.

    Shape:
        guide (D, …) in [0, 1]; truth and valid (D, …) of bool; pixels that are not valid are left out
    """
    counts = Histogram(*(np.zeros(BINS, kind) for kind in (np.int64, np.int64, np.float64)))
    for values, of_truth, of_valid in zip(guide, truth, valid, strict=True):
        values, of_truth = values[of_valid], of_truth[of_valid]
        bins = np.digitize(values, THRESHOLDS, right=True)  # a value on a threshold is not above it
        weights = (None, of_truth, values)
        counts += Histogram(*(np.bincount(bins, weight, minlength=BINS) for weight in weights))
    return counts
