"""Figures of a benchmark's results."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nnunetv2_guidino.tools.evaluation.metrics import FOREGROUND

CELL = ["dataset", "configuration", "training_cases"]
LINES = ("-", "--", ":", "-.")


def heading(names: Iterable[object]) -> str:
    """Return the name of a data set, configuration and number of training cases."""
    dataset, configuration, cases = names
    return f"{dataset}, {configuration}" + (f", {cases} training cases" if cases != "all" else "")


def low_data(summary: pd.DataFrame) -> Figure:
    """Draw Dice over the number of training cases with its 95 % interval as a band; guides alone are dashed.

    Args:
        summary: The content of summary.csv.
    """
    summary = summary[summary["class"] == FOREGROUND]
    groups = list(summary.groupby(["dataset", "configuration"], sort=False))
    figure = Figure(figsize=(5 * len(groups), 4.2), layout="constrained")
    for axis, (names, table) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        counts = sorted({int(count) for count in table["training_cases"] if count != "all"})
        places = {str(count): i for i, count in enumerate([*counts, "all"])}
        for i, (method, line) in enumerate(table.groupby("method", sort=False)):
            line = line.assign(x=line["training_cases"].astype(str).map(places)).sort_values("x")
            axis.plot(line["x"], line["dice"], marker="o", color=f"C{i}", label=str(method))
            axis.fill_between(line["x"], line["dice_low"], line["dice_high"], color=f"C{i}", alpha=0.15, linewidth=0.8)
            if "guide_dice" in line and line["guide_dice"].notna().any():
                axis.plot(line["x"], line["guide_dice"], "--", color=f"C{i}", label=f"{method}: guide alone")
        axis.set_xticks([places[str(count)] for count in dict.fromkeys(table["training_cases"])])
        axis.set_xticklabels(list(dict.fromkeys(table["training_cases"])))
        axis.set(title=" ".join(names), xlabel="training cases", ylabel="Dice")
        axis.legend(fontsize=8)
    return figure


def differences(summary: pd.DataFrame, of_cases: pd.DataFrame | None = None) -> Figure:
    """Draw each method's mean paired difference in Dice from the first method with its 95 % interval.

    Args:
        summary: The content of summary.csv.
        of_cases: The content of differences.csv: a dot for each case.
    """
    rows = summary[(summary["class"] == FOREGROUND) & summary["dice_difference"].notna()]
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(rows)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color="grey", linestyle="dotted")
    colours = {method: f"C{i}" for i, method in enumerate(dict.fromkeys(rows["method"]), start=1)}
    for y, (_, row) in enumerate(rows.iterrows()):
        colour = colours[row["method"]]
        if of_cases is not None:
            values = _of_row(of_cases, row)
            axis.plot(100 * values, [y] * len(values), "o", color=colour, alpha=0.4, markersize=5, markeredgewidth=0)
        axis.plot(
            [100 * row["dice_difference_low"], 100 * row["dice_difference_high"]], [y, y], color=colour, linewidth=3
        )
        axis.plot(100 * row["dice_difference"], y, "D", color=colour, markeredgecolor="black", markersize=6)
    labels = [f"{heading(row[CELL])}: {row['method']}" for _, row in rows.iterrows()]
    axis.set_yticks(range(len(rows)), labels, parse_math=False)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel("difference in Dice, in points")
    return figure


def _of_row(of_cases: pd.DataFrame, row: pd.Series) -> pd.Series:
    same = (of_cases["metric"] == "dice") & (of_cases["class"] == FOREGROUND)
    for column in (*CELL, "method"):
        same &= of_cases[column] == row[column]
    return of_cases.loc[same, "difference"]


def training_curves(curves: pd.DataFrame) -> Figure:
    """Draw nnU-Net's training loss and pseudo Dice, and the guide's Dice, as means over seeds and folds."""
    shown = [column for column in ("train_loss", "pseudo_dice", "guide_dice") if column in curves]
    figure = Figure(figsize=(max(1, len(shown)) * 4.5, 4), layout="constrained")
    axes = figure.subplots(1, max(1, len(shown)), squeeze=False)[0]
    lines = {}
    colours = {method: f"C{i}" for i, method in enumerate(dict.fromkeys(curves["method"]))}
    for i, (cell, of_cell) in enumerate(curves.groupby(CELL, sort=False)):
        for method, table in of_cell.groupby("method", sort=False):
            for axis, column in zip(axes, shown, strict=False):
                mean = table.groupby("epoch")[column].mean().dropna()
                look = {"color": colours[method], "linestyle": LINES[i % len(LINES)]}
                marker = "." if len(mean) < 20 else None  # a line needs two points
                (lines[f"{heading(cell)}: {method}"],) = axis.plot(mean.index + 1, mean, marker=marker, **look)
    for axis, column in zip(axes, shown, strict=False):
        axis.set(title=column.replace("_", " "), xlabel="epochs")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if lines:
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", fontsize=7)
    return figure
