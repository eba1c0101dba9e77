"""95 % intervals of means by a bootstrap over cases and runs.

Every run scores the same cases, so cases and runs are crossed: each resample draws both anew and independently (Owen,
The pigeonhole bootstrap, Annals of Applied Statistics 1(2), 2007). docs/reference/metrics.md explains the intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from nnunetv2_guidino.tools.evaluation.metrics import FOREGROUND

Array = npt.NDArray[np.float64]

RESAMPLES, AT_ONCE = 10_000, 1_000
LIMITS = [0.025, 0.975]


class _Group(NamedTuple):
    """Cases that the same runs have scored, usually the cases of one fold."""

    positions: npt.NDArray[np.intp]  # (n,) among all cases
    values: Array  # (n, runs, columns), 0 if there is no value
    valid: Array  # (n, columns), 1 if there is a value


def mean_intervals(scores: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the intervals of each class's mean over cases and runs, and of the mean of the classes' means.

    Args:
        scores: One method's scores: one row for each run, case and class. A case has values for all runs or for none.
        columns: The columns of scores.

    Returns:
        One row for each class and metric (the column's name), with low and high; NaN with fewer than two cases.
    """
    cases = sorted(scores["case"].unique())
    groups, index = _grouped(scores, columns, cases)
    rng = np.random.default_rng(1)
    means = np.concatenate([_means(groups, drawn, rng) for drawn in _drawn_cases(len(cases))])
    table, counts = pd.DataFrame(means, columns=index), _counts(groups, index)
    foreground = _percentiles(table.T.groupby("metric").mean().T, counts.groupby("metric").max())
    return pd.concat([foreground.assign(**{"class": FOREGROUND}), _percentiles(table, counts)], ignore_index=True)


def difference_intervals(scores: pd.DataFrame, baseline: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the intervals of a method's mean difference from a baseline in the same cases.

    Each resample draws the same cases for both methods, and the runs of each method independently.

    Args:
        scores, baseline, columns: As for `mean_intervals`.
    """
    cases = sorted(scores["case"].unique())
    (groups, index), (others, _) = (_grouped(table, columns, cases) for table in (scores, baseline))
    rng = np.random.default_rng(1)
    draws = _drawn_cases(len(cases))
    means = np.concatenate([_means(groups, drawn, rng) - _means(others, drawn, rng) for drawn in draws])
    return _percentiles(pd.DataFrame(means, columns=index), _counts(groups, index))


def _grouped(scores: pd.DataFrame, columns: Sequence[str], cases: Sequence[str]) -> tuple[list[_Group], pd.MultiIndex]:
    wide = scores.set_index(["case", "run", "class"])[list(columns)].unstack("class").sort_index(axis=1)
    runs = scores.groupby("case")["run"].agg(lambda names: tuple(sorted(set(names))))
    groups = []
    for names, members in runs.groupby(runs).groups.items():
        table = wide.reindex(pd.MultiIndex.from_product([members, names]))
        values = table.to_numpy(float).reshape(len(members), len(names), -1)
        positions = np.searchsorted(cases, list(members))
        groups.append(_Group(positions, np.nan_to_num(values), (~np.isnan(values[:, 0])).astype(float)))
    return groups, wide.columns.set_names(["metric", "class"])


def _drawn_cases(number: int) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the number of times that resamples draw each case, (AT_ONCE, number); every call yields the same."""
    rng = np.random.default_rng(0)
    starts = number * np.arange(AT_ONCE)[:, None]
    for _ in range(RESAMPLES // AT_ONCE):
        drawn = rng.integers(number, size=(AT_ONCE, number)) + starts
        yield np.bincount(drawn.ravel(), minlength=AT_ONCE * number).reshape(AT_ONCE, number)


def _means(groups: Sequence[_Group], drawn: npt.NDArray[np.intp], rng: np.random.Generator) -> Array:
    """Return the mean of each resample, (AT_ONCE, columns); draw the runs of each group of cases independently."""
    sums: Array | float = 0.0
    counts: Array | float = 0.0
    for positions, values, valid in groups:
        runs = values.shape[1]
        weights = rng.multinomial(runs, np.full(runs, 1 / runs), size=len(drawn)) / runs
        run_sums = np.tensordot(drawn[:, positions].astype(float), values, axes=1)  # (AT_ONCE, runs, columns)
        sums = sums + np.einsum("br,brk->bk", weights, run_sums)
        counts = counts + drawn[:, positions] @ valid
    with np.errstate(invalid="ignore"):  # a resample may hold no case of a rare class
        return np.asarray(sums / counts)


def _counts(groups: Sequence[_Group], index: pd.MultiIndex) -> pd.Series:
    """Return the number of cases with a value for each metric and class."""
    return pd.Series(np.sum([group.valid.sum(0) for group in groups], axis=0), index)


def _percentiles(means: pd.DataFrame, counts: pd.Series) -> pd.DataFrame:
    limits = means.quantile(LIMITS).T.set_axis(["low", "high"], axis=1)
    return limits.where(counts > 1).reset_index()
