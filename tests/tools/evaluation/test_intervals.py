"""Intervals of means over cases and runs, against theory and other resamplings."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap

from nnunetv2_guidino.tools.evaluation import intervals
from nnunetv2_guidino.tools.evaluation.intervals import difference_intervals, mean_intervals

RNG = np.random.default_rng(3)
CASES = RNG.normal(0.7, 0.1, 40)


def table(values, fold_of=lambda case: 0, classes=("a",)) -> pd.DataFrame:
    """Scores of (runs, cases); the same in each class."""
    rows = [
        {"run": f"seed{run}:{fold_of(i)}", "case": f"c{i:02}", "class": name, "dice": float(value)}
        for run, of_run in enumerate(values)
        for i, value in enumerate(of_run)
        for name in classes
    ]
    return pd.DataFrame(rows)


def of_mean(scores, name="a") -> tuple[float, float]:
    found = mean_intervals(scores, ["dice"]).set_index("class").loc[name]
    return found["low"], found["high"]


def of_difference(scores, baseline) -> tuple[float, float]:
    found = difference_intervals(scores, baseline, ["dice"]).iloc[0]
    return found["low"], found["high"]


def width(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]


def test_one_run_gives_the_bootstrap_over_cases():
    expected = bootstrap((CASES,), np.mean, method="percentile", rng=0).confidence_interval
    assert of_mean(table([CASES])) == pytest.approx(tuple(expected), abs=0.003)


def test_more_runs_of_the_same_cases_are_no_more_cases():
    assert of_mean(table([CASES] * 3)) == pytest.approx(of_mean(table([CASES])))
    better = CASES + RNG.normal(0.02, 0.02, 40)
    assert of_difference(table([better] * 3), table([CASES] * 3)) == pytest.approx(
        of_difference(table([better]), table([CASES]))
    )


def test_runs_that_differ_widen_the_interval():
    seeds = np.array([-0.06, 0.0, 0.06])[:, None]
    alike, apart = of_mean(table([CASES] * 3)), of_mean(table(CASES + seeds))
    assert width(apart) > 1.5 * width(alike)
    # pairs cancel the noise of a case, but not the effect of a seed on all cases
    low, high = of_difference(table(CASES + 0.02 + seeds), table([CASES] * 3))
    assert low == pytest.approx(-0.04)
    assert high == pytest.approx(0.08)


def test_folds_are_trainings_of_their_own():
    """The effects of a seed in different folds are independent, so they partly cancel in the mean."""
    seeds, fold = np.array([-0.06, 0.0, 0.06])[:, None], lambda i: i % 5
    assert width(of_mean(table(CASES + seeds, fold))) < width(of_mean(table(CASES + seeds)))


def test_the_foreground_is_the_mean_of_the_classes():
    scores = table([CASES, CASES + 0.03], classes=("a", "b"))
    assert of_mean(scores, "foreground mean") == pytest.approx(of_mean(scores, "a"))


def test_cases_without_a_value_are_left_out():
    values = CASES.copy()
    values[30:] = np.nan
    assert of_mean(table([values])) == pytest.approx(of_mean(table([CASES[:30]])), abs=0.01)
    values[1:] = np.nan
    assert np.isnan(of_mean(table([values]))).all()


def test_they_hold_the_truth_as_often_as_they_say(monkeypatch):
    """Differences around 0 with noise of seeds (0.02), of cases (0.05) and of both (0.1); 3 seeds, 50 cases."""
    monkeypatch.setattr(intervals, "RESAMPLES", 1000)
    rng, trials, held, of_cases_only = np.random.default_rng(0), 100, 0, 0
    for _ in range(trials):
        values = rng.normal(0, 0.02, (3, 1)) + rng.normal(0, 0.05, 50) + rng.normal(0, 0.1, (3, 50))
        low, high = of_mean(table(values))
        held += low <= 0 <= high
        per_case = values.mean(0)
        of_cases_only += abs(per_case.mean()) <= 1.96 * per_case.std(ddof=1) / 50**0.5
    assert held >= 0.9 * trials
    assert of_cases_only < 0.85 * trials
