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
            spread = "" if pd.isna(values["std"]) else f" ± {scale * values['std']:.2f}"
            difference = with_interval(values["difference"], values["ci_low"], values["ci_high"], scale, "+")
            row += [f"{number(scale * values['mean'])}{spread}", difference]
        rows.append([*row, str(int(by_metric["runs"].iloc[0]))])
    return rows


def guide_rows(summary: pd.DataFrame) -> list[list[str]]:
    """A row for each method and class that has a guide of its own.

    Args:
        summary: As `summarize` gives it, of one data set.
    """
    head = (
        "method",
        "class",
        "segmentation",
        "guide alone",
        "segmentation − guide",
        "best threshold",
        "Dice there",
        "ECE",
    )
    rows = [list(head)]
    for _, values in summary[summary["guide_dice"].notna() & summary["best_dice"].notna()].iterrows():
        above, low, high = (values[f"above_guide{ending}"] for ending in ("", "_low", "_high"))
        rows.append(
            [
                str(values["method"]), str(values["class"]),
                number(100 * values["segmentation_dice"]), number(100 * values["guide_dice"]),
                with_interval(above, low, high, 100, "+"),
                f"{values['best_threshold']:.2f}", number(100 * values["best_dice"]),
                f"{values['calibration_error']:.3f}",
            ]
        )  # fmt: skip
    return rows


def with_interval(value: float, low: float, high: float, scale: float = 100, sign: str = "") -> str:
    """`+1.00 [+0.50, +1.50]`; without the interval where there is none, and nothing without a value."""
    if pd.isna(value):
        return ""
    text = number(scale * value, sign)
    return text if pd.isna(low) else f"{text} [{number(scale * low, sign)}, {number(scale * high, sign)}]"


def number(value: float, sign: str = "") -> str:
    """Two digits behind the point; a dash for none."""
    return "–" if pd.isna(value) else f"{value:{sign}.2f}"
