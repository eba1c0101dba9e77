"""Compare methods that were evaluated on the same cases, from a notebook or for `guidino compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import wilcoxon

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import write_files
from nnunetv2_guidino.printable import check_name
from nnunetv2_guidino.tools.drawing.pages import csv
from nnunetv2_guidino.tools.evaluation.cases import is_file, listing
from nnunetv2_guidino.tools.evaluation.comparison_report import differences_png, latex, markdown
from nnunetv2_guidino.tools.evaluation.empty_masks import count_empty, on_the_same_cases
from nnunetv2_guidino.tools.evaluation.intervals import difference_intervals, mean_intervals
from nnunetv2_guidino.tools.evaluation.metrics import FOREGROUND, METRICS
from nnunetv2_guidino.tools.evaluation.summary import case_table, read_summary

# Smaller differences, relative to the largest value, are rounding errors. Wilcoxon's test would rank them.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Comparison:
    """The comparison of several methods."""

    table: pd.DataFrame  # comparison.csv: one row for each class, method and metric
    differences: pd.DataFrame  # differences.csv: each case's difference from the baseline
    empty: pd.DataFrame  # for each class the number of cases with an empty reference, and of those that count
    text: str  # comparison.md


def compare(runs: Mapping[str, Sequence[Path]], output: Path | None = None) -> Comparison:
    """Compare methods case by case: means over seeds and folds, and tests of the paired differences.

    Args:
        runs: The folders of each method's seeds (or folds) under its name; the first method is the baseline. A folder
            is an output of `evaluate`, or a model folder after `guidino evaluate -m`, whose folds count as runs.
        output: The folder for comparison.md, .csv and .tex, differences.csv and .png; None writes nothing.

    Raises:
        GuidinoError: If the methods were scored with different settings, on different cases or other references.
    """
    scores = load_runs(runs)
    differences = paired_differences(scores)
    table = mean_over_runs(scores)
    for more in (intervals(scores), significance(differences)):
        table = table.merge(more, how="left", on=["class", "method", "metric"])
    empty = count_empty(scores)
    text = markdown(table, empty)
    if output:
        contents: dict[str, str | bytes] = {"comparison.md": text, "comparison.csv": csv(table)}
        contents["comparison.tex"] = latex(table)
        if not differences.empty:
            contents["differences.csv"] = csv(differences)
            contents["differences.png"] = differences_png(differences, table)
        write_files(Path(output), contents)
    return Comparison(table, differences, empty, text)


def load_runs(runs: Mapping[str, Sequence[Path]]) -> pd.DataFrame:
    """Return one row for each method, run (one folder, one fold), case and class, with the metrics.

    Each metric of a case has a value for all runs or for none (`on_the_same_cases`).

    Raises:
        GuidinoError: As `compare` does.
    """
    tables: list[pd.DataFrame] = []
    settings: dict[Path, Any] = {}
    for name, folders in runs.items():
        check_name(name, "the name of a method")
        files = [_summary_file(Path(folder)) for folder in folders]
        for folder, file in zip(folders, files, strict=True):
            if sum(file.samefile(other) for other in files) > 1:
                raise GuidinoError(f"{name}: {folder} is given twice")
            summary = read_summary(file)
            settings[file] = summary["settings"] | {"classes": summary["classes"]}
            table = case_table(summary)
            tables.append(table.assign(method=name, run=f"{folder}:" + table["fold"]))
    if not tables:
        raise GuidinoError("nothing to compare; name a method and its folders")
    _check_settings(settings)
    scores = pd.concat(tables, ignore_index=True)
    _check_cases(scores)
    return on_the_same_cases(scores)


def _summary_file(folder: Path) -> Path:
    for file in (folder / "summary.json", folder / "evaluation" / "summary.json"):
        if is_file(file):
            return file
    raise GuidinoError(
        f"{folder} has no summary.json; run guidino evaluate first (for a model folder: with -m {folder})"
    )


def _check_settings(settings: dict[Path, Any]) -> None:
    (first, expected), *others = settings.items()
    for file, found in others:
        for key in dict.fromkeys([*expected, *found]):
            if found.get(key) != expected.get(key):
                raise GuidinoError(
                    f"{first} has {key} {expected.get(key)}, {file} has {found.get(key)}; evaluate both alike"
                )


def _check_cases(scores: pd.DataFrame) -> None:
    per_method = dict(iter(scores.groupby("method", sort=False)))
    baseline, *_ = per_method
    expected = per_method[baseline].groupby(["case", "class"])["n_ref"].first()
    for name, table in per_method.items():
        cases = set(table["case"])
        if missing := set(per_method[baseline]["case"]) - cases:
            raise GuidinoError(f"{name} was not scored on {listing(missing)} of {baseline}")
        if extra := cases - set(per_method[baseline]["case"]):
            raise GuidinoError(f"{name} was also scored on {listing(extra)}, but {baseline} was not")
        repeats = table.groupby("case")["run"].nunique()
        if fewer := set(repeats.index[repeats < repeats.max()]):
            raise GuidinoError(f"{name} has {repeats.max()} runs of some cases, fewer of {listing(fewer)}")
        n_ref = table.set_index(["case", "class"])["n_ref"]
        if changed := {case for case, _ in n_ref.index[n_ref != expected.reindex(n_ref.index)]}:
            raise GuidinoError(f"{name} was scored with other references than {baseline} for {listing(changed)}")


def mean_over_runs(scores: pd.DataFrame) -> pd.DataFrame:
    """Return for each class, method and metric the mean and standard deviation of the runs' means.

    The column delta holds the mean's difference from the baseline's mean.
    """
    per_class = scores.groupby(["method", "run", "class"], sort=False)[METRICS].mean()
    foreground = per_class.groupby(["method", "run"], sort=False).mean()
    foreground = pd.concat({FOREGROUND: foreground}, names=["class"]).reset_index()
    per_run = pd.concat([foreground, per_class.reset_index()]).melt(["class", "method", "run"], METRICS, "metric")
    groups = per_run.groupby(["class", "method", "metric"], sort=False)["value"]
    table = groups.agg(mean="mean", std="std", runs="count").reset_index()
    baseline = table.groupby(["class", "metric"])["mean"].transform("first")
    return table.assign(delta=table["mean"] - baseline)


def paired_differences(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each method's difference from the baseline in each case, class and metric, both averaged over seeds."""
    per_case = scores.groupby(["method", "case", "class"], sort=False)[METRICS].mean()
    names = list(scores["method"].unique())
    tables = []
    for name in names[1:]:
        difference = per_case.loc[name] - per_case.loc[names[0]]
        foreground = pd.concat({FOREGROUND: difference.groupby("case").mean()}, names=["class"]).reset_index()
        both = pd.concat([foreground, difference.reset_index()], ignore_index=True)
        tables.append(both.melt(["class", "case"], METRICS, "metric", "difference").assign(method=name))
    columns = ["class", "method", "metric", "case", "difference"]
    if not tables:
        return pd.DataFrame(columns=columns)
    return without_rounding(pd.concat(tables)[columns].dropna(), ["difference"], per_case.abs().max())


def without_rounding(table: pd.DataFrame, columns: list[str], largest: pd.Series) -> pd.DataFrame:
    """Round differences to whole steps, so that Wilcoxon's test sees equal ones as equal and rounding errors as 0.

    Args:
        table: A table with a column metric.
        columns: The columns of differences.
        largest: The largest value of each metric.
    """
    steps = table["metric"].map(largest.where(largest > 0, 1.0)) * ROUNDING
    return table.assign(**{column: (table[column] / steps).round() * steps for column in columns})


def intervals(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the 95 % intervals of each class's mean (mean_low, mean_high) and of its paired difference (ci_…)."""
    foreground = scores.groupby(["method", "run", "case"], sort=False)[METRICS].mean().reset_index()
    with_foreground = pd.concat([foreground.assign(**{"class": FOREGROUND}), scores])
    baseline = scores["method"].iloc[0]
    of_baseline = with_foreground[with_foreground["method"] == baseline]
    tables = []
    for name, table in scores.groupby("method", sort=False):
        limits = mean_intervals(table, METRICS).rename(columns={"low": "mean_low", "high": "mean_high"})
        if name != baseline:
            found = difference_intervals(with_foreground[with_foreground["method"] == name], of_baseline, METRICS)
            found = without_rounding(found, ["low", "high"], scores[METRICS].abs().max())
            found = found.rename(columns={"low": "ci_low", "high": "ci_high"})
            limits = limits.merge(found, on=["metric", "class"])
        tables.append(limits.assign(method=name))
    return pd.concat(tables, ignore_index=True)


def significance(differences: pd.DataFrame) -> pd.DataFrame:
    """Return the mean paired difference over the cases and the p value of Wilcoxon's signed-rank test."""
    groups = differences.groupby(["class", "method", "metric"], sort=False)["difference"]
    return groups.agg(cases="count", difference="mean", p=_p_value).reset_index()


def _p_value(differences: pd.Series) -> float:
    if len(differences) < 2:
        return float("nan")
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0  # the test is undefined if all are 0
