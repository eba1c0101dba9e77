"""Metrics of one class in one case, as docs/reference/metrics.md defines them."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion, find_objects
from scipy.spatial import KDTree

Mask = npt.NDArray[np.bool_]
Empty = Literal["penalize", "ignore"]

# name in summary.json -> column in cases.csv
COLUMNS = {"Dice": "dice", "IoU": "iou", "HD95": "hd95", "NSD": "nsd", "Precision": "precision", "Recall": "recall"}
METRICS = list(COLUMNS.values())
LOWER_IS_BETTER = {"hd95"}
HEADINGS = {column: f"{name} {'↓' if column in LOWER_IS_BETTER else '↑'}" for name, column in COLUMNS.items()}
SCALES = {column: 1 if column in LOWER_IS_BETTER else 100 for column in METRICS}  # comparisons show ratios in percent
COUNTS = ("n_ref", "n_pred")
FOREGROUND = "foreground mean"
# Files store spacings in 32 bits, and their products are rounded: one pixel of 0.3 may come out as 0.30000001.
ROUNDING = 1e-5


def class_metrics(
    reference: Mask, prediction: Mask, spacing: Sequence[float], nsd_tolerance: float, empty: Empty
) -> dict[str, Any]:
    """Score one class.

    Args:
        reference, prediction: Masks of the same shape (H, W) or (D, H, W). Ignored pixels are False in both.
        spacing: The size of a pixel along each axis; HD95 is in its unit.
        nsd_tolerance: NSD counts a surface point as right up to this distance, in the unit of the spacing.
        empty: If one mask is empty, "penalize" gives undefined metrics their worst value (HD95: the image's diagonal)
            and "ignore" leaves them NaN. If both masks are empty, all metrics are NaN.
    """
    n_ref, n_pred, tp = (int(np.count_nonzero(mask)) for mask in (reference, prediction, reference & prediction))
    fp, fn = n_pred - tp, n_ref - tp
    metrics = {
        "Dice": _ratio(2 * tp, n_ref + n_pred),
        "IoU": _ratio(tp, n_ref + n_pred - tp),
        "Precision": _ratio(tp, n_pred),
        "Recall": _ratio(tp, n_ref),
        "HD95": nan,
        "NSD": 0.0 if n_ref or n_pred else nan,
    }
    if n_ref and n_pred:
        to_reference, to_prediction = surface_distances(reference, prediction, spacing)
        metrics["HD95"] = float(max(np.percentile(to_reference, 95), np.percentile(to_prediction, 95)))
        right = sum(np.count_nonzero(within(distances, nsd_tolerance)) for distances in (to_reference, to_prediction))
        metrics["NSD"] = right / (len(to_reference) + len(to_prediction))
    elif (n_ref or n_pred) and empty == "penalize":
        metrics["HD95"] = float(np.linalg.norm(np.multiply(reference.shape, spacing)))
        metrics |= {"Precision": 0.0, "Recall": 0.0}
    return metrics | {"TP": tp, "FP": fp, "FN": fn, "n_ref": n_ref, "n_pred": n_pred}


def within(distances: npt.NDArray[np.float64], tolerance: float) -> Mask:
    """Return which distances are at most the tolerance; a distance that rounding lifts above it still counts."""
    return distances <= tolerance * (1 + ROUNDING)


def surface_distances(
    reference: Mask, prediction: Mask, spacing: Sequence[float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the distances from the prediction's surface pixels to the reference's surface, and the reverse.

    Neither mask may be empty.
    """
    (box,) = find_objects((reference | prediction).view(np.uint8))  # no surface lies outside it
    reference_surface = _surface(reference[box]) * spacing
    prediction_surface = _surface(prediction[box]) * spacing
    to_reference, _ = KDTree(reference_surface).query(prediction_surface)
    to_prediction, _ = KDTree(prediction_surface).query(reference_surface)
    return to_reference, to_prediction


def _surface(mask: Mask) -> npt.NDArray[np.intp]:
    """Return the indices (n, ndim) of pixels with a neighbour outside the mask across an edge (2D) or a face (3D)."""
    return np.argwhere(mask & ~binary_erosion(mask))


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else nan
