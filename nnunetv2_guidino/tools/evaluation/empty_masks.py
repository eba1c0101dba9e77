"""Treat empty references by one rule when methods are compared, for means and tests alike.

A case with an empty reference and an empty prediction has no Dice. When one method is scored alone, its means leave the
case out. When another run predicts something there and gets 0, the case must count, or a correct empty prediction would
earn nothing.
"""

from __future__ import annotations

import pandas as pd

from nnunetv2_guidino.tools.evaluation.metrics import COUNTS, LOWER_IS_BETTER, METRICS

BEST = {metric: 0.0 if metric in LOWER_IS_BETTER else 1.0 for metric in METRICS}
ONE_CASE = ["case", "class"]


def on_the_same_cases(scores: pd.DataFrame) -> pd.DataFrame:
    """Give each metric of a case and class a value for all runs of all methods, or for none.

    If any run has a value, correct empty predictions get the best value (1; HD95 0). If a run still has no value
    (`--empty ignore`), no run keeps its own: the comparison of this metric leaves the case out.

    Args:
        scores: One row for each method, run, case and class, with the metrics, n_ref and n_pred.
    """
    correct = (scores[list(COUNTS)] == 0).all(axis=1)
    cases = [scores[column] for column in ONE_CASE]
    values = scores[METRICS].astype(float)
    any_run = values.notna().groupby(cases).transform("any")
    best = pd.DataFrame(BEST, index=scores.index)
    values = values.mask(any_run.mul(correct, axis=0) & values.isna(), best)
    return scores.assign(**values.where(values.notna().groupby(cases).transform("all")))


def count_empty(scores: pd.DataFrame) -> pd.DataFrame:
    """Count for each class the cases, the empty references, how many of these count, and the cases without a metric.

    Args:
        scores: The result of `on_the_same_cases`.
    """
    firsts = scores.groupby(ONE_CASE, sort=False)[["n_ref", *METRICS]].first(skipna=False).reset_index()
    empty = firsts["n_ref"] == 0
    rows = pd.DataFrame(
        {"class": firsts["class"], "cases": 1, "reference_empty": empty, "counted": empty & firsts["dice"].notna()}
    )
    rows = rows.join(firsts[METRICS].isna().add_suffix("_left_out"))
    return rows.groupby("class", sort=False).sum().astype(int).reset_index()
