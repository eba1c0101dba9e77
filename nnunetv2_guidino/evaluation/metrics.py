"""The metrics of one class in one case. docs/reference/metrics.md holds the definitions."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

Mask = npt.NDArray[np.bool_]
Empty = Literal["penalize", "ignore"]

# name in summary.json -> column in cases.csv
COLUMNS = {"Dice": "dice", "IoU": "iou", "HD95": "hd95", "NSD": "nsd", "Precision": "precision", "Recall": "recall"}
LOWER_IS_BETTER = ("HD95",)
METRICS = list(COLUMNS.values())
COUNTS = ("n_ref", "n_pred")
FOREGROUND = "foreground mean"
# Spacings are stored in 32 bits and products of them are rounded: one pixel of 0.3 may come out as 0.30000001, and one
# of 0.7 as another number in each place.
ROUNDING = 1e-5


def class_metrics(
    reference: Mask, prediction: Mask, spacing: Sequence[float], nsd_tolerance: float, empty: Empty
) -> dict[str, Any]:
    """Score one class.

    Args:
        reference, prediction: masks of the same shape (H, W) or (D, H, W). Pixels to ignore are False in both.
        spacing: size of a pixel along each axis; HD95 is in its unit.
        nsd_tolerance: distance in the unit of the spacing up to which NSD takes a surface point for right.
        empty: "penalize" gives what is undefined where one mask is empty its worst value (HD95: the image's diagonal),
            "ignore" leaves it NaN. Where both masks are empty everything but the counts is NaN either way.
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
    """Which distances are at most the tolerance, which itself belongs to it whatever the rounding of the spacing."""
    return distances <= tolerance * (1 + ROUNDING)


def surface_distances(
    reference: Mask, prediction: Mask, spacing: Sequence[float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Distance of each surface pixel of the prediction to the reference's surface, and of each of the reference's to
    the prediction's. Neither mask may be empty.
    """
    box = mask_box(reference | prediction)  # outside it there is no surface
    reference_surface = _surface(reference[box]) * spacing
    prediction_surface = _surface(prediction[box]) * spacing
    to_reference, _ = KDTree(reference_surface).query(prediction_surface)
    to_prediction, _ = KDTree(prediction_surface).query(reference_surface)
    return to_reference, to_prediction


def mask_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box that holds every pixel of a mask that is not empty."""
    box = []
    for axis in range(mask.ndim):
        found = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def _surface(mask: Mask) -> npt.NDArray[np.intp]:
    """Indices (n, ndim) of the mask's pixels that have a neighbour across an edge (2D) or face (3D) outside of it."""
    return np.argwhere(mask & ~binary_erosion(mask))


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else nan
