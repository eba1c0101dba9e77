"""How well a guide finds the foreground: Dice and area under the ROC curve, and their summary over cases."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_auc_score

from nnunetv2_guidino.model.losses.dice import THRESHOLD, dice
from nnunetv2_guidino.tools.drawing.pages import markdown_table

Array = npt.NDArray[Any]


def guide_scores(guide: Array, truth: Array) -> dict[str, float]:
    """Dice of the guide at threshold 0.5, and the area under its ROC curve over all pixels.

    Dice is nan where both masks are empty, the AUC where all pixels are of one kind.

    Shape:
        guide (n,) in [0, 1], truth (n,) of bool
    """
    mask = guide > THRESHOLD
    score = dice(*(int(pixels.sum()) for pixels in (mask & truth, mask & ~truth, ~mask & truth)))
    auc = float(roc_auc_score(truth, guide)) if truth.any() and not truth.all() else float("nan")
    return {"dice": score, "auc": auc}


def summary(table: pd.DataFrame) -> str:
    """Mean ± standard deviation, median, extremes and number of cases of the guide's Dice and AUC, as Markdown."""
    rows = []
    for name, column in (("Dice at 0.5", "dice"), ("AUC", "auc")):
        values = table[column].dropna()
        numbers = [f"{value:.3f}" for value in (values.median(), values.min(), values.max())]
        rows.append([name, f"{values.mean():.3f} ± {values.std():.3f}", *numbers, f"{len(values)} of {len(table)}"])
    return markdown_table(pd.DataFrame(rows, columns=["guide", "mean ± sd", "median", "lowest", "highest", "cases"]))
