"""Compare methods that `guidino evaluate` scored on the same cases; the first one is the baseline. A RUN is
NAME=FOLDER,FOLDER,… with one folder for each seed (or fold) of a method, or just FOLDER. A folder is what evaluate
wrote, or a model folder after `guidino evaluate -m`. Prints a table of mean ± standard deviation over seeds and folds
with the difference from the baseline in parentheses, and tests the paired differences of the cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import bootstrap, wilcoxon

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.evaluation.cases import listing
from nnunetv2_guidino.evaluation.comparison_report import differences_png, latex, markdown
from nnunetv2_guidino.evaluation.labels import read_json
from nnunetv2_guidino.evaluation.report import FOREGROUND, METRICS, case_table, write_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="NAME=FOLDER,FOLDER,… or FOLDER; the first: the baseline"
    )
    parser.add_argument(
        "-o", type=Path, metavar="DIR", help="also write comparison.md, .csv, .tex, differences.csv and differences.png"
    )


def run(args: argparse.Namespace) -> None:
    scores = load_runs(args.runs)
    means, differences = mean_over_runs(scores), paired_differences(scores)
    comparison = means.merge(significance(differences), how="left", on=["class", "method", "metric"])
    text = markdown(comparison)
    print(text)
    if args.o:
        contents: dict[str, str | bytes] = {
            "comparison.md": text,
            "comparison.csv": comparison.to_csv(index=False),
            "comparison.tex": latex(comparison),
        }
        if not differences.empty:
            contents["differences.csv"] = differences.to_csv(index=False)
            contents["differences.png"] = differences_png(differences, comparison)
        write_files(args.o, contents)


def load_runs(arguments: Sequence[str]) -> pd.DataFrame:
    """One row for each method, run (one folder, one fold), case and class, with the metrics.

    Raises GuidinoError if the methods were scored with different settings, on different cases or other references.
    """
    tables: list[pd.DataFrame] = []
    settings: dict[Path, Any] = {}
    for argument in arguments:
        name, folders = parse_run(argument)
        if any(name == table["method"].iloc[0] for table in tables):
            raise GuidinoError(f"two runs are called {name}: tell them apart with NAME=FOLDER")
        for folder in folders:
            file = _summary_file(folder)
            summary = read_json(file)
            if "settings" not in summary:
                raise GuidinoError(f"{file} was not written by guidino evaluate: score these predictions with it")
            settings[file] = summary["settings"] | {"classes": summary["classes"]}
            table = case_table(summary)
            tables.append(table.assign(method=name, run=f"{folder}:" + table["fold"]))
    _check_settings(settings)
    scores = pd.concat(tables, ignore_index=True)
    _check_cases(scores)
    return scores


def parse_run(argument: str) -> tuple[str, list[Path]]:
    """Name and folders of NAME=FOLDER,FOLDER… or FOLDER."""
    name, separator, folders = argument.partition("=")
    if not separator or Path(argument).exists():
        folder = Path(argument).resolve()
        return folder.parent.name if folder.name == "evaluation" else folder.name, [Path(argument)]
    return name, [Path(folder) for folder in folders.split(",")]


def _summary_file(folder: Path) -> Path:
    for file in (folder / "summary.json", folder / "evaluation" / "summary.json"):
        if file.is_file():
            return file
    raise GuidinoError(f"{folder} has no summary.json: run guidino evaluate first (a model folder: with -m {folder})")


def _check_settings(settings: dict[Path, Any]) -> None:
    (first, expected), *others = settings.items()
    for file, found in others:
        for key, value in expected.items():
            if found[key] != value:
                raise GuidinoError(f"{first} has {key} {value}, {file} has {found[key]}: evaluate both alike")


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
    """For each class, method and metric the mean and standard deviation of the runs' means, and the distance from the
    baseline's mean.
    """
    per_class = scores.groupby(["method", "run", "class"], sort=False)[METRICS].mean()
    foreground = per_class.groupby(["method", "run"], sort=False).mean()
    foreground = pd.concat({FOREGROUND: foreground}, names=["class"]).reset_index()
    per_run = pd.concat([foreground, per_class.reset_index()]).melt(["class", "method", "run"], METRICS, "metric")
    groups = per_run.groupby(["class", "method", "metric"], sort=False)["value"]
    table = groups.agg(mean="mean", std="std", runs="size").reset_index()
    baseline = table[table["method"] == table["method"].iloc[0]].set_index(["class", "metric"])["mean"]
    reference = baseline.reindex(pd.MultiIndex.from_frame(table[["class", "metric"]])).to_numpy()
    return table.assign(delta=table["mean"] - reference)


def paired_differences(scores: pd.DataFrame) -> pd.DataFrame:
    """Difference of each method from the baseline in each case, class and metric, both averaged over their seeds."""
    per_case = scores.groupby(["method", "case", "class"], sort=False)[METRICS].mean()
    names = list(scores["method"].unique())
    tables = []
    for name in names[1:]:
        difference = per_case.loc[name] - per_case.loc[names[0]]
        foreground = pd.concat({FOREGROUND: difference.groupby("case").mean()}, names=["class"])
        both = pd.concat([foreground.reset_index(), difference.reset_index()])
        tables.append(both.melt(["class", "case"], METRICS, "metric", "difference").assign(method=name))
    columns = ["class", "method", "metric", "case", "difference"]
    return pd.concat(tables)[columns].dropna() if tables else pd.DataFrame(columns=columns)


def significance(differences: pd.DataFrame) -> pd.DataFrame:
    """Mean paired difference with its bootstrap 95 % interval, and the p value of Wilcoxon's signed-rank test."""
    groups = differences.groupby(["class", "method", "metric"], sort=False)["difference"]
    rows = [dict(zip(("class", "method", "metric"), key, strict=True)) | _test(d.to_numpy(float)) for key, d in groups]
    columns = ["class", "method", "metric", "cases", "difference", "ci_low", "ci_high", "p"]
    return pd.DataFrame(rows, columns=columns)


def _test(difference: npt.NDArray[np.float64]) -> dict[str, float]:
    result = {"cases": len(difference), "difference": difference.mean()}
    if len(difference) < 2:
        return result
    interval = bootstrap((difference,), np.mean, method="percentile", rng=0).confidence_interval
    # without a single difference the test is undefined, and there is nothing to tell apart
    p = wilcoxon(difference).pvalue if difference.any() else 1.0
    return result | {"ci_low": interval.low, "ci_high": interval.high, "p": p}
