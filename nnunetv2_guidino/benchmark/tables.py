"""A benchmark's numbers as rows of text, for HTML and Markdown."""

from __future__ import annotations

import pandas as pd

from nnunetv2_guidino.evaluation.metrics import COLUMNS, LOWER_IS_BETTER

NAMES = {column: name for name, column in COLUMNS.items()}
SHOWN = ("dice", "iou", "hd95")  # the paper's; the others are in comparison.csv


def comparison_rows(comparison: pd.DataFrame) -> list[list[str]]:
    """A row for each method, two columns for each metric shown: its mean, and the difference from the first method.

    Args:
        comparison: As comparison.csv, of one data set and class.
    """
    metrics = [metric for metric in SHOWN if metric in set(comparison["metric"])]
    headings = [f"{NAMES[metric]} {'↓' if NAMES[metric] in LOWER_IS_BETTER else '↑'}" for metric in metrics]
    rows = [["method", *(text for name in headings for text in (name, "Δ")), "trainings"]]
    for method, table in comparison.groupby("method", sort=False):
        by_metric = table.set_index("metric")
        row = [str(method)]
        for metric in metrics:
            values, scale = by_metric.loc[metric], 1 if NAMES[metric] in LOWER_IS_BETTER else 100
            spread = "" if pd.isna(values["std"]) else f" ± {number(values['std'], scale)}"
            difference = values.rename({"ci_low": "difference_low", "ci_high": "difference_high"})
            row += [f"{number(values['mean'], scale)}{spread}", with_interval(difference, "difference", "+", scale)]
        rows.append([*row, number(by_metric["runs"].iloc[0], digits=0)])
    return rows


def guide_rows(summary: pd.DataFrame) -> list[list[str]]:
    """A row for each method and class that has a guide of its own.

    Args:
        summary: As `summarize` gives it, of one data set.
    """
    rows = [
        [
            "method",
            "class",
            "segmentation",
            "guide alone",
            "segmentation − guide",
            "best threshold",
            "Dice there",
            "ECE",
        ]
    ]
    for _, values in summary[summary["best_dice"].notna()].iterrows():
        dice = [number(values[column], 100) for column in ("segmentation_dice", "guide_dice")]
        best = [number(values["best_threshold"]), number(values["best_dice"], 100)]
        error = number(values["calibration_error"], digits=3)
        name = str(values["class"]).removesuffix(" mean")  # of one class
        rows.append([str(values["method"]), name, *dice, with_interval(values, "above_guide", "+"), *best, error])
    return rows


def with_interval(values: pd.Series, column: str, sign: str = "", scale: float = 100) -> str:
    """`+1.00 [+0.50, +1.50]` of the columns NAME, NAME_low and NAME_high; only what is there of it.

    Args:
        sign: "+" shows it of positive numbers too.
        scale: What the numbers are multiplied with.
    """
    if pd.isna(values.get(column)):
        return ""
    text = number(values[column], scale, sign)
    low, high = (number(values.get(f"{column}_{limit}"), scale, sign) for limit in ("low", "high"))
    return text if "–" in (low, high) else f"{text} [{low}, {high}]"


def number(value: float | None, scale: float = 1, sign: str = "", digits: int = 2) -> str:
    """A number as text; a dash for none."""
    return "–" if value is None or pd.isna(value) else f"{scale * value:{sign}.{digits}f}"
