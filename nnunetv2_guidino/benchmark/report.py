"""report.html in one file, and the CSV files with all that it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from nnunetv2_guidino.benchmark.plots import as_png, differences, heading, low_data, training_curves
from nnunetv2_guidino.benchmark.summary import CELL
from nnunetv2_guidino.benchmark.tables import comparison_rows, guide_rows
from nnunetv2_guidino.evaluation.metrics import FOREGROUND
from nnunetv2_guidino.evaluation.report import POLICY, csv, figure, html_table, write_files

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}"
    "td,th{padding:.2rem .7rem;border-bottom:1px solid #ccc;text-align:right;white-space:nowrap;vertical-align:top}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}"
    "figure{margin:1rem 0;display:flex;flex-direction:column-reverse;align-items:flex-start}"
)
MEANS = (
    "Mean ± standard deviation over trainings (seeds and folds). Δ: mean difference from {first} in the same cases, "
    "with its 95 % interval over cases and seeds. Ratios in percent."
)
GUIDES = (
    "Guide alone: Dice, in percent, of the pixels in which it is above ½. A guide for each class is compared with its "
    "class, one guide with all classes together, and so is the segmentation beside it; their difference comes with its "
    "95 % interval. Best threshold: of 0.05, 0.10, …, 0.95, the mean over trainings. ECE: expected calibration error, "
    "0 is best."
)
WORST = (
    "Cases in which a method loses most against {first}, then those with the lowest Dice; each with the seed in "
    "which that is so. Numbers are Dice in percent. Below each segmentation is the guide that it had: black is "
    "0, yellow 1, the outline is the reference's. Of a volume, the slice with the most errors."
)


@dataclass(frozen=True)
class Results:
    """All tables of a benchmark; each is a CSV file of its name.

    Args:
        summary: One row for each data set, configuration, number of cases, method and class.
        runs: One row for each training: what it is, its state, seconds and folder.
        scores: One row for each training, case and class, with the metrics.
        comparison: One row for each data set, configuration, number of cases, class, method and metric.
        differences: The cases' differences from the first method.
        guides: One row for each training and class that has a guide: the guide alone, and its calibration.
        guide_cases: One row for each training, case and class that has a guide.
        worst_cases: One row for each case that is shown and method.
        curves: One row for each training and epoch.
    """

    summary: pd.DataFrame
    runs: pd.DataFrame
    scores: pd.DataFrame
    comparison: pd.DataFrame
    differences: pd.DataFrame
    guides: pd.DataFrame
    guide_cases: pd.DataFrame
    worst_cases: pd.DataFrame
    curves: pd.DataFrame


def write_report(
    output: Path,
    title: str,
    results: Results,
    pictures: Mapping[str, Sequence[tuple[str, bytes]]],
    notes: Sequence[str],
) -> Path:
    """Write all files or none; the report's path.

    Args:
        pictures: Of the worst cases of each data set: title and JPEG.
        notes: What is left out, and why.
    """
    contents: dict[str, str | bytes] = {
        f"{field.name}.csv": csv(table)
        for field in fields(results)
        if not (table := getattr(results, field.name)).empty
    }
    contents["report.html"] = _html(title, results, pictures, notes)
    write_files(output, contents)
    return output / "report.html"


def _html(
    title: str, results: Results, pictures: Mapping[str, Sequence[tuple[str, bytes]]], notes: Sequence[str]
) -> str:
    states = ", ".join(f"{count} {state}" for state, count in results.runs["state"].value_counts().items())
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{len(results.runs)} trainings: {escape(states)}.</p>"]
    if notes:
        parts.append("<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>")
    parts += [*_tables(results), *_figures(results)]
    first = str(results.runs["method"].iloc[0])
    for name, of_dataset in pictures.items():
        parts += [f"<h2>Worst cases: {escape(name)}</h2>", f"<p>{escape(WORST.format(first=first))}</p>"]
        parts += [figure(title, jpeg, "jpeg") for title, jpeg in of_dataset]
    left = results.runs[results.runs["state"] != "done"]
    if not left.empty:
        columns = ["dataset", "configuration", "training_cases", "method", "fold", "seed", "state"]
        rows = [columns, *([str(value) for value in row] for row in left[columns].itertuples(index=False))]
        parts += ["<h2>Not done</h2>", html_table(rows)]
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"{POLICY}<style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def _tables(results: Results) -> list[str]:
    """Of each data set the methods beside each other, and the guides alone."""
    if results.comparison.empty:
        return []
    parts = [f"<p>{escape(MEANS.format(first=results.comparison['method'].iloc[0]))}</p>"]
    if "guide_dice" in results.summary:
        parts.append(f"<p>{escape(GUIDES)}</p>")
    for names, table in results.comparison.groupby(CELL, sort=False):
        parts.append(f"<h2>{escape(heading(names))}</h2>")
        for class_name, of_class in table.groupby("class", sort=False):
            if class_name == FOREGROUND or table["class"].nunique() > 2:
                parts += [f"<h3>{escape(str(class_name))}</h3>", html_table(comparison_rows(of_class))]
        summary = results.summary[(results.summary[CELL] == list(names)).all(axis=1)]
        if "guide_dice" in summary and summary["guide_dice"].notna().any():
            parts += ["<h3>guide alone</h3>", html_table(guide_rows(summary))]
    return parts


def _figures(results: Results) -> list[str]:
    parts = []
    if not results.comparison.empty and results.comparison["training_cases"].nunique() > 1:
        parts += ["<h2>With fewer training cases</h2>", "<p>Bands are 95 % intervals over cases and seeds.</p>"]
        parts.append(_embedded("Dice over the number of training cases", low_data(results.summary)))
    if not results.differences.empty:
        shown = differences(results.summary, results.differences)
        parts.append("<h2>Difference of each case from the first method</h2>")
        parts.append(
            _embedded(
                "Diamond and bar: mean and its 95 % interval over cases and seeds. Dots: cases, mean over seeds.", shown
            )
        )
    return [*parts, "<h2>Training</h2>", _embedded("Mean over seeds and folds", training_curves(results.curves))]


def _embedded(title: str, drawn: Figure) -> str:
    return figure(title, as_png(drawn))
