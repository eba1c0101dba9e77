"""The report of a benchmark: report.html in one file, and a CSV file for each table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from nnunetv2_guidino.display import picture_file
from nnunetv2_guidino.files import write_files
from nnunetv2_guidino.lab.benchmark.guides import GUIDE_COLUMNS
from nnunetv2_guidino.lab.benchmark.plots import CELL, differences, heading, low_data, training_curves
from nnunetv2_guidino.tools.drawing.pages import Section, csv, html, number
from nnunetv2_guidino.tools.evaluation.metrics import FOREGROUND, HEADINGS, SCALES
from nnunetv2_guidino.tools.guide.guide_alone import ANY_CLASS

METRICS = ("dice", "iou", "hd95")  # the paper's metrics; comparison.csv has the others
ROW = [*CELL, "method", "class"]
SCORES = {  # column of comparison.csv -> ending of the column in summary.csv
    "mean": "", "mean_low": "_low", "mean_high": "_high",
    "difference": "_difference", "ci_low": "_difference_low", "ci_high": "_difference_high",
}  # fmt: skip
GUIDES = [name + limit for name in GUIDE_COLUMNS for limit in ("", "_low", "_high")]
CALIBRATION = ["best_threshold", "best_dice", "calibration_error"]
MEANS_TEXT = (
    "Mean ± standard deviation over trainings (seeds and folds). Δ: mean difference from {first} in the same cases, "
    "with its 95 % interval over cases and seeds. Ratios are in percent."
)
GUIDES_TEXT = (
    "Guide alone: the Dice, in percent, of the pixels in which the guide is above ½. A guide for each class is "
    "compared with its class, and one guide with all classes together; so is the segmentation beside it. Their "
    "difference has its 95 % interval. Best threshold: of 0.05, 0.10, …, 0.95, the mean over trainings. ECE: expected "
    "calibration error, 0 is best."
)
WORST_TEXT = (
    "The cases in which a method loses most against {first}, then those with the lowest Dice, each with the seed of "
    "its largest loss. Numbers are Dice in percent. Below each segmentation is its guide: black is 0, yellow 1, and "
    "the outline is the reference's. A volume is shown by the slice with the most errors."
)


@dataclass(frozen=True)
class Results:
    """The tables of a benchmark; each becomes a CSV file of its name.

    Args:
        summary: One row for each data set, configuration, number of cases, method and class.
        runs: One row for each training: its identity, state, seconds and folder.
        scores: One row for each training, case and class, with the metrics.
        comparison: One row for each data set, configuration, number of cases, class, method and metric.
        differences: Each case's difference from the first method.
        guides: One row for each training and class with a guide: the guide's own scores and calibration.
        guide_cases: One row for each training, case and class with a guide.
        worst_cases: One row for each shown case and method.
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
    """Write all files or none; return the report's path.

    Args:
        pictures: The worst cases of each data set: title and JPEG.
        notes: What the report leaves out, and why.
    """
    tables = {f"{field.name}.csv": getattr(results, field.name) for field in fields(results)}
    contents = {name: csv(table) for name, table in tables.items() if not table.empty}
    write_files(output, contents | {"report.html": html(title, report_sections(results, pictures, notes))})
    return output / "report.html"


def report_sections(
    results: Results, pictures: Mapping[str, Sequence[tuple[str, bytes]]], notes: Sequence[str]
) -> list[Section]:
    """Return the sections of report.html."""
    runs = results.runs
    states = ", ".join(f"{count} {state}" for state, count in runs["state"].value_counts().items())
    sections = [Section(text=f"{len(runs)} trainings: {states}.", notes=notes)]
    sections += [*_tables(results), *_figures(results)]
    for name, drawn in pictures.items():
        sections.append(Section(f"Worst cases: {name}", WORST_TEXT.format(first=runs["method"].iloc[0])))
        sections += [Section(pictures=[picture]) for picture in drawn]
    unfinished = runs[runs["state"] != "done"]
    if not unfinished.empty:
        sections.append(Section("Not done", table=unfinished[[*CELL, "method", "fold", "seed", "state"]]))
    return sections


def _tables(results: Results) -> list[Section]:
    """Return the tables of each data set: the methods beside each other, and the guides alone."""
    if results.comparison.empty:
        return []
    sections = [Section(text=MEANS_TEXT.format(first=results.comparison["method"].iloc[0]))]
    if "guide_dice" in results.summary:
        sections.append(Section(text=GUIDES_TEXT))
    for names, table in results.comparison.groupby(CELL, sort=False):
        sections.append(Section(heading(names)))
        for name, of_class in table.groupby("class", sort=False):
            if name == FOREGROUND or table["class"].nunique() > 2:
                sections.append(Section(str(name), table=_comparison_table(of_class), level=3))
        summary = results.summary[(results.summary[CELL] == list(names)).all(axis=1)]
        if "guide_dice" in summary and summary["guide_dice"].notna().any():
            sections.append(Section("guide alone", table=_guide_table(summary), level=3))
    return sections


def _comparison_table(comparison: pd.DataFrame) -> pd.DataFrame:
    """Return for each method of one class each metric's mean and its difference from the first method."""
    metrics = [metric for metric in METRICS if metric in set(comparison["metric"])]
    rows = []
    for method, table in comparison.groupby("method", sort=False):
        row = [method]
        for metric in metrics:
            values, scale = table.set_index("metric").loc[metric], SCALES[metric]
            spread = "" if pd.isna(values["std"]) else f" ± {number(values['std'], scale)}"
            difference = values.rename({"ci_low": "difference_low", "ci_high": "difference_high"})
            row += [f"{number(values['mean'], scale)}{spread}", with_interval(difference, "difference", "+", scale)]
        rows.append([*row, number(table["runs"].iloc[0], digits=0)])
    columns = ["method", *(text for metric in metrics for text in (HEADINGS[metric], "Δ")), "trainings"]
    return pd.DataFrame(rows, columns=columns)


def _guide_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return for each method and class of one data set the scores of the segmentation and of its guide."""
    rows = summary[summary["best_dice"].notna()]
    return pd.DataFrame(
        {
            "method": rows["method"],
            "class": rows["class"].str.removesuffix(" mean"),  # the foreground of a single class
            "segmentation": rows["segmentation_dice"].map(number, scale=100),
            "guide alone": rows["guide_dice"].map(number, scale=100),
            "segmentation − guide": [with_interval(row, "above_guide", "+") for _, row in rows.iterrows()],
            "best threshold": rows["best_threshold"].map(number),
            "Dice there": rows["best_dice"].map(number, scale=100),
            "ECE": rows["calibration_error"].map(number, digits=3),
        }
    )


def with_interval(values: pd.Series, column: str, sign: str = "", scale: float = 100) -> str:
    """Return `+1.00 [+0.50, +1.50]` of the columns NAME, NAME_low and NAME_high, without the parts that are missing.

    Args:
        sign: "+" marks positive numbers too.
        scale: The factor of all numbers.
    """
    if pd.isna(values.get(column)):
        return ""
    text, low, high = (number(values.get(column + ending), scale, sign) for ending in ("", "_low", "_high"))
    return text if "–" in (low, high) else f"{text} [{low}, {high}]"


def _figures(results: Results) -> list[Section]:
    sections = []
    if not results.comparison.empty and results.comparison["training_cases"].nunique() > 1:
        picture = "Dice over the number of training cases", picture_file(low_data(results.summary), dpi=90)
        text = "Bands are 95 % intervals over cases and seeds."
        sections.append(Section("With fewer training cases", text, pictures=[picture]))
    if not results.differences.empty:
        title = "Diamond and bar: mean and its 95 % interval over cases and seeds. Dots: cases, mean over seeds."
        picture = title, picture_file(differences(results.summary, results.differences), dpi=90)
        sections.append(Section("Difference of each case from the first method", pictures=[picture]))
    picture = "Mean over seeds and folds", picture_file(training_curves(results.curves), dpi=90)
    return [*sections, Section("Training", pictures=[picture])]


def summarize(comparison: pd.DataFrame, beside: pd.DataFrame, guides: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each data set, configuration, number of cases, method and class.

    Args:
        comparison: The content of comparison.csv.
        beside: The result of `guides_and_segmentations`, with the columns CELL.
        guides: One row for each training and class with a guide, as in guides.csv.
        runs: One row for each training, with its seconds.

    Returns:
        The number of trainings and cases; Dice, IoU and HD95 with 95 % intervals and paired differences from the first
        method; the Dice of segmentation and guide for the guide's classes, and its calibration; a training's seconds.
        The only class of a data set is its foreground. A class "any foreground" has only the guide's columns.
    """
    classes = comparison[comparison["class"] != FOREGROUND].groupby("dataset")["class"].unique()
    only = {dataset: names[0] for dataset, names in classes.items() if len(names) == 1}
    comparison = comparison[comparison["class"] != comparison["dataset"].map(only)]
    values = ["runs", "cases", *SCORES]
    comparison = comparison.reindex(columns=[*ROW, "metric", *values])  # a single method has no differences
    comparison[values] = comparison[values].astype(float)
    table = comparison.pivot(index=ROW, columns="metric", values=values)
    summary = pd.DataFrame({"trainings": table["runs"]["dice"], "cases": table["cases"]["dice"]})
    for metric in METRICS:
        for column, ending in SCORES.items():
            summary[metric + ending] = table[column][metric]
    summary = summary.reset_index()
    # the first method has no differences; its cases are those of the others
    summary["cases"] = summary.groupby([*CELL, "class"])["cases"].transform("max")
    if not beside.empty:
        beside, guides = (_only_as_foreground(table, only) for table in (beside[[*ROW, *GUIDES]], guides))
        calibration = guides.groupby(ROW, sort=False)[CALIBRATION].mean().reset_index()
        summary = summary.merge(beside.merge(calibration, how="left", on=ROW), how="outer", on=ROW)
    # data sets and methods in the matrix's order; of the classes, the foreground first and "any foreground" last
    trainings = runs.groupby([*CELL, "method"], sort=False)["seconds"].mean().reset_index().reset_index(names="rank")
    summary = summary.merge(trainings, on=[*CELL, "method"])
    summary["class_rank"] = summary["class"].map({FOREGROUND: 0, ANY_CLASS: 2}).fillna(1)
    ranks = ["rank", "class_rank"]
    return summary.sort_values(ranks, kind="stable").drop(columns=ranks).round(4)


def _only_as_foreground(table: pd.DataFrame, only: Mapping[str, str]) -> pd.DataFrame:
    is_only = table["class"] == table["dataset"].map(only)
    return table.assign(**{"class": table["class"].mask(is_only, FOREGROUND)})
