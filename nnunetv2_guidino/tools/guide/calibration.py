"""How well a guide's values are calibrated, from a histogram of them: Dice at any threshold, and calibration error.

docs/reference/metrics.md holds the definitions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnunetv2_guidino.model.losses.dice import THRESHOLD, dice

Array = npt.NDArray[Any]

BINS = 20
THRESHOLDS = np.arange(1, BINS) / BINS  # 0.05, 0.10, …, 0.95: the edges of the bins
HALF = list(THRESHOLDS).index(THRESHOLD)


class Histogram(NamedTuple):
    """Of a guide's values in one case, or several: a pixel of value v is in bin k where k/20 < v ≤ (k + 1)/20.

    Shape:
        (BINS,) each
    """

    pixels: Array  # how many
    foreground: Array  # how many of these are foreground in the reference
    confidence: Array  # the sum of their values

    def __add__(self, other: object) -> Histogram:
        if not isinstance(other, Histogram):
            return NotImplemented
        return Histogram(*(a + b for a, b in zip(self, other, strict=True)))

    def dice(self) -> Array:
        """Dice of the pixels above each of THRESHOLDS; NaN where neither guide nor reference has any."""
        predicted, hits = (np.cumsum(counts[::-1])[::-1][1:] for counts in (self.pixels, self.foreground))
        missed = self.foreground.sum() - hits
        return np.array([dice(*map(int, counts)) for counts in zip(hits, predicted - hits, missed, strict=True)])

    def calibration_error(self) -> float:
        """Expected calibration error: over the bins, weighted by their pixels, the mean distance between the share of
        foreground and the mean value; NaN without a pixel.
        """
        total = self.pixels.sum()
        return float(np.abs(self.foreground - self.confidence).sum() / total) if total else float("nan")


def histogram(guide: Array, truth: Array, valid: Array) -> Histogram:
    """Count slice by slice, so that a volume takes hardly any memory beyond its own.

    Shape:
        guide (D, …) in [0, 1], truth and valid the same of bool; pixels that are not valid are left out
    """
    counts = Histogram(*(np.zeros(BINS, kind) for kind in (np.int64, np.int64, np.float64)))
    for values, of_truth, of_valid in zip(guide, truth, valid, strict=True):
        values, of_truth = values[of_valid], of_truth[of_valid]
        bins = np.digitize(values, THRESHOLDS, right=True)  # on a threshold is not above it
        weights = (None, of_truth, values)
        counts += Histogram(*(np.bincount(bins, weight, minlength=BINS) for weight in weights))
    return counts
