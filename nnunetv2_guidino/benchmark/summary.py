"""The few numbers of a benchmark that one keeps: a row for each method, made of all its tables."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from nnunetv2_guidino.benchmark.guide_tables import COLUMNS
from nnunetv2_guidino.evaluation.metrics import FOREGROUND
from nnunetv2_guidino.inspection.guide_alone import ANY_CLASS

CELL = ["dataset", "configuration", "training_cases"]
SCORES = {  # column of comparison.csv -> ending of the column in summary.csv
    "mean": "", "mean_low": "_low", "mean_high": "_high",
    "difference": "_difference", "ci_low": "_difference_low", "ci_high": "_difference_high",
}  # fmt: skip
METRICS = ("dice", "iou", "hd95")
ROW = [*CELL, "method", "class"]
GUIDES = [name + limit for name in COLUMNS for limit in ("", "_low", "_high")]
CALIBRATION = ["best_threshold", "best_dice", "calibration_error"]


def summarize(comparison: pd.DataFrame, beside: pd.DataFrame, guides: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each data set, configuration, number of cases, method and class.

    Args:
        comparison: As comparison.csv.
        beside: Guides beside segmentations, as `beside_segmentations` gives them, with the columns CELL.
        guides: One row for each training and class that has a guide, as guides.csv.
        runs: One row for each training, with its seconds.

    Returns:
        Trainings and cases that count; Dice, IoU and HD95 with 95 % intervals and paired differences from the first
        method; of segmentation and guide their Dice for what the guide is for, and calibration; seconds of a training.
        The only class of a data set is its foreground. A class "any foreground" has the guide's columns only.
    """
    classes = comparison[comparison["class"] != FOREGROUND].groupby("dataset")["class"].unique()
    only = {dataset: names[0] for dataset, names in classes.items() if len(names) == 1}
    comparison = comparison[comparison["class"] != comparison["dataset"].map(only)]
    values = ["runs", "cases", *SCORES]
    comparison = comparison.reindex(columns=[*ROW, "metric", *values])  # one method alone has no differences
    comparison[values] = comparison[values].astype(float)
    table = comparison.pivot(index=ROW, columns="metric", values=values)
    summary = pd.DataFrame({"trainings": table["runs"]["dice"], "cases": table["cases"]["dice"]})
    for metric in METRICS:
        for column, ending in SCORES.items():
            summary[metric + ending] = table[column][metric]
    summary = summary.reset_index()
    # of the first method, which has no differences, they are those of the others
    summary["cases"] = summary.groupby([*CELL, "class"])["cases"].transform("max")
    if not beside.empty:
        beside, guides = (_only_as_foreground(table, only) for table in (beside[[*ROW, *GUIDES]], guides))
        calibration = guides.groupby(ROW, sort=False)[CALIBRATION].mean().reset_index()
        summary = summary.merge(beside.merge(calibration, how="left", on=ROW), how="outer", on=ROW)
    seconds = runs.groupby([*CELL, "method"], sort=False)["seconds"].mean().reset_index()
    return _in_order(summary.merge(seconds, how="left", on=[*CELL, "method"]), runs).round(4)


def _only_as_foreground(table: pd.DataFrame, only: Mapping[str, str]) -> pd.DataFrame:
    is_only = table["class"] == table["dataset"].map(only)
    return table.assign(**{"class": table["class"].mask(is_only, FOREGROUND)})


def _in_order(summary: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Data sets and methods as the matrix has them; the foreground first, then its classes."""
    place = [*CELL, "method"]
    ranks = runs[place].drop_duplicates().reset_index(drop=True).reset_index(names="rank")
    ranked = summary.merge(ranks, on=place)
    ranked["class_rank"] = ranked["class"].map({FOREGROUND: 0, ANY_CLASS: 2}).fillna(1)
    return ranked.sort_values(["rank", "class_rank"], kind="stable").drop(columns=["rank", "class_rank"])
