"""Guides alone as tables: of each case, of each training, and beside the segmentations that they guide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from nnunetv2_guidino.evaluation.intervals import mean_intervals
from nnunetv2_guidino.evaluation.metrics import FOREGROUND
from nnunetv2_guidino.inspection.calibration import HALF, THRESHOLDS, Histogram

BOTH = ["segmentation_dice", "guide_dice"]
COLUMNS = [*BOTH, "above_guide"]


def case_rows(entries: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row for each case and class: case, class, segmentation_dice and guide_dice (at threshold ½).

    Args:
        entries: Of one training, as KeptGuide has them.
    """
    half = [_histogram(entry).dice()[HALF] for entry in entries]
    return pd.DataFrame(entries)[["case", "class", "segmentation_dice"]].assign(guide_dice=half)


def training_rows(entries: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row for each class of a training: means over the cases of the Dice of segmentation and guide, the threshold
    at which the guide's mean Dice is best and this Dice, and the guide's calibration error over all pixels.
    """
    return pd.DataFrame(
        [_training_row(name, list(group)) for name, group in _by_class(entries).items()],
        columns=["class", "cases", *BOTH, "best_threshold", "best_dice", "calibration_error"],
    )


def _by_class(entries: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    names = dict.fromkeys(entry["class"] for entry in entries)
    return {name: [entry for entry in entries if entry["class"] == name] for name in names}


def _training_row(name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    histograms = [_histogram(entry) for entry in entries]
    pooled = sum(histograms[1:], histograms[0])
    row = {"class": name, "cases": 0, "calibration_error": pooled.calibration_error()}
    at_thresholds = np.array([histogram.dice() for histogram in histograms])  # (cases, thresholds)
    of_segmentation = np.array([entry["segmentation_dice"] for entry in entries], float)
    counted = ~(np.isnan(at_thresholds[:, HALF]) & np.isnan(of_segmentation))
    if not counted.any():
        return row
    means = np.nan_to_num(at_thresholds[counted], nan=1.0).mean(0)  # nothing found where nothing is, is right
    best = int(means.argmax())
    return row | {
        "cases": int(counted.sum()),
        "segmentation_dice": np.nan_to_num(of_segmentation[counted], nan=1.0).mean(),
        "guide_dice": means[HALF],
        "best_threshold": THRESHOLDS[best],
        "best_dice": means[best],
    }


def _histogram(entry: dict[str, Any]) -> Histogram:
    return Histogram(*(np.array(entry[field]) for field in Histogram._fields))


def beside_segmentations(cases: pd.DataFrame) -> pd.DataFrame:
    """One row for each method and class, and for the mean of several classes: the Dice of segmentation and guide, and
    their difference (above_guide), each with its 95 % interval (…_low, …_high).

    Args:
        cases: `case_rows` of all trainings that are compared, with the columns method and run.
    """
    place = [cases["case"], cases["class"]]
    counted = cases[cases[BOTH].notna().any(axis=1).groupby(place).transform("any")].fillna(dict.fromkeys(BOTH, 1.0))
    counted = counted.assign(above_guide=counted["segmentation_dice"] - counted["guide_dice"])
    tables = [_with_intervals(table).assign(method=name) for name, table in counted.groupby("method", sort=False)]
    return pd.concat(tables, ignore_index=True)


def _with_intervals(counted: pd.DataFrame) -> pd.DataFrame:
    means = counted.groupby("class", sort=False)[COLUMNS].mean()
    if len(means) > 1:
        means.loc[FOREGROUND] = means.mean()
    limits = mean_intervals(counted, COLUMNS).pivot(index="class", columns="metric", values=["low", "high"])
    limits.columns = [f"{metric}_{limit}" for limit, metric in limits.columns]
    return means.join(limits).reset_index()
