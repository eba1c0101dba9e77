"""One rule for empty references when methods are compared, for tables and tests alike.

An empty reference with an empty prediction has no Dice: alone, such a case is left out of the means. Beside a run that
predicts something there, and gets 0, it must count, or finding nothing where nothing is would be worth nothing.
"""

from __future__ import annotations

import pandas as pd

from nnunetv2_guidino.evaluation.metrics import COLUMNS, COUNTS, LOWER_IS_BETTER, METRICS

BEST = {column: 0.0 if name in LOWER_IS_BETTER else 1.0 for name, column in COLUMNS.items()}
ONE_CASE = ["case", "class"]


def on_the_same_cases(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores, where each metric of a case and class has a value for all runs of all methods, or for none.

    Where any run has a value, those that are right to predict nothing get the best one (1; HD95 0). Where a run still
    has none (`--empty ignore`), no run keeps its own: the metric is compared without this case.

    Args:
        scores: One row for each method, run, case and class, with the metrics, n_ref and n_pred.
    """
    right = (scores[list(COUNTS)] == 0).all(axis=1)
    cases = [scores[column] for column in ONE_CASE]
    values = scores[METRICS].astype(float)
    anywhere = values.notna().groupby(cases).transform("any")
    best = pd.DataFrame(BEST, index=scores.index)
    values = values.mask(anywhere.mul(right, axis=0) & values.isna(), best)
    return scores.assign(**values.where(values.notna().groupby(cases).transform("all")))


def count_empty(scores: pd.DataFrame) -> pd.DataFrame:
    """For each class the number of cases, of those with an empty reference, how many of these count, and how many cases
    each metric leaves out.

    Args:
        scores: As `on_the_same_cases` returns them.
    """
    firsts = scores.groupby(ONE_CASE, sort=False)[["n_ref", *METRICS]].first(skipna=False).reset_index()
    empty = firsts["n_ref"] == 0
    rows = pd.DataFrame(
        {"class": firsts["class"], "cases": 1, "reference_empty": empty, "counted": empty & firsts["dice"].notna()}
    )
    rows = rows.join(firsts[METRICS].isna().add_suffix("_left_out"))
    return rows.groupby("class", sort=False).sum().astype(int).reset_index()
