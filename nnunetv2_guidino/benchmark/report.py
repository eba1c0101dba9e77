"""report.html in one file, and the CSV files with all that it shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path

import pandas as pd
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nnunetv2_guidino.evaluation.metrics import COLUMNS, FOREGROUND, LOWER_IS_BETTER
from nnunetv2_guidino.evaluation.report import csv, html_table, write_files

NAMES = {column: name for name, column in COLUMNS.items()}
CELL = ["dataset", "configuration", "training_cases"]
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;border-bottom:1px solid #ccc;text-align:left}"
    "img{max-width:100%}"
)


@dataclass(frozen=True)
class Results:
    """All tables of a benchmark; each is a CSV file of its name.

    Args:
        runs: One row for each training: what it is, its state, seconds and folder.
        scores: One row for each training, case and class, with the metrics.
        comparison: One row for each data set, configuration, number of cases, class, method and metric.
        differences: The cases' differences from the first method.
        curves: One row for each training and epoch.
    """

    runs: pd.DataFrame
    scores: pd.DataFrame
    comparison: pd.DataFrame
    differences: pd.DataFrame
    curves: pd.DataFrame


def write_report(output: Path, title: str, results: Results, notes: Sequence[str]) -> Path:
    """Write all files or none; the report's path.

    Args:
        notes: What is left out, and why.
    """
    contents: dict[str, str | bytes] = {
        f"{field.name}.csv": csv(table)
        for field in fields(results)
        if not (table := getattr(results, field.name)).empty
    }
    contents["report.html"] = _html(title, results, notes)
    write_files(output, contents)
    return output / "report.html"


def _html(title: str, results: Results, notes: Sequence[str]) -> str:
    states = ", ".join(f"{count} {state}" for state, count in results.runs["state"].value_counts().items())
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{len(results.runs)} trainings: {escape(states)}.</p>"]
    parts += [f"<p>{escape(note)}.</p>" for note in notes]
    if not results.comparison.empty:
        parts.append(
            "<p>Mean ± standard deviation over seeds and folds; Δ: mean difference of the cases from the first method, "
            "with its bootstrap 95 % interval. Ratios in percent.</p>"
        )
        for names, table in results.comparison.groupby(CELL, sort=False):
            parts.append(f"<h2>{escape(_heading(names))}</h2>")
            for class_name, of_class in table.groupby("class", sort=False):
                if class_name == FOREGROUND or table["class"].nunique() > 2:
                    parts += [f"<h3>{escape(str(class_name))}</h3>", html_table(_rows(of_class))]
        if results.comparison["training_cases"].nunique() > 1:
            parts += ["<h2>With fewer training cases</h2>", _image(_low_data(results.comparison))]
    if not results.differences.empty:
        parts += ["<h2>Difference of each case from the first method</h2>", _image(_paired(results.differences))]
    parts += ["<h2>Training</h2>", _image(_curves(results.curves))]
    left = results.runs[results.runs["state"] != "done"]
    if not left.empty:
        columns = ["dataset", "configuration", "training_cases", "method", "fold", "seed", "state"]
        rows = [columns, *([str(value) for value in row] for row in left[columns].itertuples(index=False))]
        parts += ["<h2>Not done</h2>", html_table(rows)]
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style><body>{body}</body></html>\n"
    )


def _heading(names: tuple[str, str, object]) -> str:
    dataset, configuration, cases = names
    return f"{dataset}, {configuration}" + (f", {cases} training cases" if cases != "all" else "")


def _rows(comparison: pd.DataFrame) -> list[list[str]]:
    """One row for each method, two columns for each metric."""
    metrics = [metric for metric in NAMES if metric in set(comparison["metric"])]
    header = [
        "method",
        *(text for m in metrics for text in (f"{NAMES[m]} {'↓' if NAMES[m] in LOWER_IS_BETTER else '↑'}", "Δ")),
    ]
    rows = [header]
    for method, table in comparison.groupby("method", sort=False):
        by_metric = table.set_index("metric")
        row = [str(method)]
        for metric in metrics:
            values, scale = by_metric.loc[metric], 1 if NAMES[metric] in LOWER_IS_BETTER else 100
            spread = "" if pd.isna(values["std"]) else f" ± {scale * values['std']:.2f}"
            row += [f"{scale * values['mean']:.2f}{spread}", _difference(values, scale)]
        rows.append(row)
    return rows


def _difference(values: pd.Series, scale: int) -> str:
    if pd.isna(values.get("difference")):
        return ""
    text = f"{scale * values['difference']:+.2f}"
    return (
        text
        if pd.isna(values["ci_low"])
        else f"{text} [{scale * values['ci_low']:+.2f}, {scale * values['ci_high']:+.2f}]"
    )


def _image(figure: Figure) -> str:
    stream = io.BytesIO()
    with style.context("default"):  # nnU-Net changes the fonts of the whole process
        figure.savefig(stream, dpi=90)
    return f'<p><img src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"></p>'


def _low_data(comparison: pd.DataFrame) -> Figure:
    """Dice over the number of training cases, with bands of one standard deviation over seeds and folds."""
    dice = comparison[(comparison["metric"] == "dice") & (comparison["class"] == FOREGROUND)]
    groups = list(dice.groupby(["dataset", "configuration"], sort=False))
    figure = Figure(figsize=(5 * len(groups), 4), layout="constrained")
    for axis, (names, table) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        counts = sorted({int(count) for count in table["training_cases"] if count != "all"})
        places: dict[object, int] = {**{count: i for i, count in enumerate(counts)}, "all": len(counts)}
        for method, line in table.groupby("method", sort=False):
            x = [places[count] for count in line["training_cases"]]
            line = line.assign(x=x).sort_values("x")
            axis.plot(line["x"], line["mean"], marker="o", label=str(method))
            spread = line["std"].fillna(0)
            axis.fill_between(line["x"], line["mean"] - spread, line["mean"] + spread, alpha=0.2)
        axis.set_xticks(list(places.values()), [str(count) for count in places])
        axis.set(title=" ".join(names), xlabel="training cases", ylabel="Dice")
        axis.legend()
    return figure


def _paired(differences: pd.DataFrame) -> Figure:
    """Each case's difference in Dice, a row of points for each method."""
    dice = differences[(differences["metric"] == "dice") & (differences["class"] == FOREGROUND)]
    groups = list(dice.groupby([*CELL, "method"], sort=False))
    figure = Figure(figsize=(10, 1.5 + 0.5 * len(groups)), layout="constrained")
    axis = figure.subplots()
    for i, (_, table) in enumerate(groups):
        axis.plot(table["difference"], [i] * len(table), "o", alpha=0.4)
        axis.plot([table["difference"].mean()] * 2, [i - 0.3, i + 0.3], "k-")
    axis.axvline(0, color="grey", linestyle="dotted")
    axis.set_yticks(range(len(groups)), [f"{_heading(names[:3])}: {names[3]}" for names, _ in groups])
    axis.set_xlabel("difference in Dice; the line is the mean")
    return figure


def _curves(curves: pd.DataFrame) -> Figure:
    """nnU-Net's training loss and pseudo Dice, and the guide's Dice; the mean over seeds and folds."""
    shown = [column for column in ("train_loss", "pseudo_dice", "guide_dice") if column in curves]
    figure = Figure(figsize=(max(1, len(shown)) * 4.5, 4), layout="constrained")
    axes = figure.subplots(1, max(1, len(shown)), squeeze=False)[0]
    lines = {}
    for i, (names, table) in enumerate(curves.groupby([*CELL, "method"], sort=False)):
        label = f"{_heading(names[:3])}: {names[3]}"
        for axis, column in zip(axes, shown, strict=False):
            mean = table.groupby("epoch")[column].mean().dropna()
            marker = "." if len(mean) < 20 else None  # a line needs two points
            (lines[label],) = axis.plot(mean.index + 1, mean, color=f"C{i}", marker=marker)
    for axis, column in zip(axes, shown, strict=False):
        axis.set(title=column.replace("_", " "), xlabel="epochs")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if lines:
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", fontsize=7)
    return figure
