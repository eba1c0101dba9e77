"""95 % intervals of means by a bootstrap over cases and runs: other cases might have been drawn, and other seeds.

Cases and runs are crossed, for every run scores the same cases: both are drawn anew, each on its own (Owen, The
pigeonhole bootstrap, Annals of Applied Statistics 1(2), 2007). docs/reference/metrics.md says what that means.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from nnunetv2_guidino.evaluation.metrics import FOREGROUND

Array = npt.NDArray[np.float64]

RESAMPLES, AT_ONCE = 10_000, 1_000
PERCENTILES = (2.5, 97.5)


class _Together(NamedTuple):
    """Cases that the same runs have scored: those of one fold, as a rule."""

    positions: npt.NDArray[np.intp]  # (n,) among all cases
    values: Array  # (n, runs, columns), 0 where there is none
    valid: Array  # (n, columns), 1 where there is a value


def mean_intervals(scores: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The interval of each class's mean over cases and runs, and of the foreground's: the mean of the classes' means.

    Args:
        scores: Of one method: one row for each run, case and class. A case has a value for all its runs or for none.
        columns: Whose means.

    Returns:
        One row for each class and metric (the column's name), with low and high; NaN with fewer than two cases.
    """
    cases = sorted(scores["case"].unique())
    groups, index = _together(scores, columns, cases)
    rng = np.random.default_rng(1)
    means = np.concatenate([_means(groups, drawn, rng) for drawn in _drawn_cases(len(cases))])
    classes = index.get_level_values("class").unique()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a mean over no class at all
        foreground = np.nanmean(means.reshape(len(means), len(columns), len(classes)), axis=2)
    table = _percentiles(means, _counts(groups), index)
    most = _counts(groups).reshape(len(columns), len(classes)).max(1)
    of_foreground = pd.MultiIndex.from_product([sorted(columns), [FOREGROUND]])
    return pd.concat([_percentiles(foreground, most, of_foreground), table], ignore_index=True)


def difference_intervals(scores: pd.DataFrame, baseline: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The interval of the mean difference of a method from a baseline in the same cases; their runs are drawn apart.

    Args:
        scores, baseline, columns: As `mean_intervals` takes them.
    """
    cases = sorted(scores["case"].unique())
    (groups, index), (others, _) = (_together(table, columns, cases) for table in (scores, baseline))
    rng = np.random.default_rng(1)
    draws = _drawn_cases(len(cases))
    means = np.concatenate([_means(groups, drawn, rng) - _means(others, drawn, rng) for drawn in draws])
    return _percentiles(means, _counts(groups), index)


def _together(
    scores: pd.DataFrame, columns: Sequence[str], cases: Sequence[str]
) -> tuple[list[_Together], pd.MultiIndex]:
    wide = scores.set_index(["case", "run", "class"])[list(columns)].unstack("class").sort_index(axis=1)
    runs = scores.groupby("case")["run"].agg(lambda names: tuple(sorted(set(names))))
    groups = []
    for names, members in runs.groupby(runs).groups.items():
        table = wide.reindex(pd.MultiIndex.from_product([members, names]))
        values = table.to_numpy(float).reshape(len(members), len(names), -1)
        positions = np.searchsorted(cases, list(members))
        groups.append(_Together(positions, np.nan_to_num(values), (~np.isnan(values[:, 0])).astype(float)))
    return groups, wide.columns


def _drawn_cases(number: int) -> Iterator[npt.NDArray[np.intp]]:
    """How often each case is drawn in each resample, (AT_ONCE, number); the same at every call."""
    rng = np.random.default_rng(0)
    starts = number * np.arange(AT_ONCE)[:, None]
    for _ in range(RESAMPLES // AT_ONCE):
        drawn = rng.integers(number, size=(AT_ONCE, number)) + starts
        yield np.bincount(drawn.ravel(), minlength=AT_ONCE * number).reshape(AT_ONCE, number)


def _means(groups: Sequence[_Together], drawn: npt.NDArray[np.intp], rng: np.random.Generator) -> Array:
    """The mean of each resample, (AT_ONCE, columns); the runs of each group of cases are drawn on their own."""
    sums: Array | float = 0.0
    counts: Array | float = 0.0
    for positions, values, valid in groups:
        runs = values.shape[1]
        weights = rng.multinomial(runs, np.full(runs, 1 / runs), size=len(drawn)) / runs
        of_runs = np.tensordot(drawn[:, positions].astype(float), values, axes=1)  # (AT_ONCE, runs, columns)
        sums = sums + np.einsum("br,brk->bk", weights, of_runs)
        counts = counts + drawn[:, positions] @ valid
    with np.errstate(invalid="ignore"):  # a class that is in few cases may be in none that were drawn
        return np.asarray(sums / counts)


def _counts(groups: Sequence[_Together]) -> Array:
    """How many cases have a value, (columns,)."""
    return np.asarray(np.sum([group.valid.sum(0) for group in groups], axis=0))


def _percentiles(means: Array, counts: Array, index: pd.MultiIndex) -> pd.DataFrame:
    low, high = np.full((2, len(index)), np.nan)
    enough = counts > 1
    if enough.any():
        low[enough], high[enough] = np.nanpercentile(means[:, enough], PERCENTILES, axis=0)
    return pd.DataFrame({"low": low, "high": high}, index=index.set_names(["metric", "class"])).reset_index()
