"""Tables and a plot of a comparison: comparison.md, comparison.tex and differences.png."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from nnunetv2_guidino.display import picture_file
from nnunetv2_guidino.tools.drawing import pages
from nnunetv2_guidino.tools.drawing.pages import Section, number
from nnunetv2_guidino.tools.evaluation.metrics import COLUMNS, FOREGROUND, HEADINGS, LOWER_IS_BETTER, METRICS, SCALES

NAMES = {column: name for name, column in COLUMNS.items()}
UNITS = {metric: heading + " (%)" * (SCALES[metric] == 100) for metric, heading in HEADINGS.items()}
PLOTTED = ("dice", "iou", "hd95", "nsd")
MEANS = (
    "Mean ± standard deviation over runs (seeds and folds); in parentheses the difference of the means from "
    "{baseline}. HD95 is in the unit of the files' spacing (PNG: pixels)."
)
DIFFERENCES = (
    "Differences per case, averaged over seeds: the mean with its 95 % interval (bootstrap over cases and seeds), and "
    "p of Wilcoxon's signed-rank test over cases (two-sided, not corrected for several tests)."
)
FOREGROUND_NOTE = (
    " The foreground's difference in a case is the mean over the classes that count there, so cases have equal "
    "weights; in the table of means, classes have equal weights."
)
EMPTY = (
    "If the reference is empty, an empty prediction is correct. If any run predicts something there, the case counts "
    "for every run: correct runs get 1 (HD95 0). If no run does, the case is left out for all runs. A metric also "
    "leaves out a case for which any run has no value."
)
BETTER, WORSE = "#0072B2", "#D55E00"


def markdown(comparison: pd.DataFrame, empty: pd.DataFrame) -> str:
    """Return the means, the paired differences and the number of cases that count.

    Args:
        comparison: One row for each class, method and metric, as in comparison.csv.
        empty: One row for each class, as `count_empty` returns it.
    """
    baseline, classes = comparison["method"].iloc[0], _classes(comparison)
    sections = [Section(text=MEANS.format(baseline=baseline))]
    sections += [Section(name, table=_means(of_class)) for name, of_class in classes]
    if comparison["method"].nunique() > 1:
        text = DIFFERENCES + FOREGROUND_NOTE * (len(empty) > 1)
        sections.append(Section(f"Paired differences from {baseline}", text, level=1))
        sections += [Section(name, table=_differences(of_class)) for name, of_class in classes]
    if empty.drop(columns=["class", "cases", "counted"]).any(axis=None):
        sections.append(Section("Empty references", EMPTY, _empty(empty), level=1))
    return pages.markdown("Comparison", sections)


def latex(comparison: pd.DataFrame) -> str:
    """Return a tabular of the means for each class."""
    return "\n".join(f"% {name}\n{pages.latex(_means(of_class))}" for name, of_class in _classes(comparison))


def differences_png(differences: pd.DataFrame, comparison: pd.DataFrame) -> bytes:
    """Plot for each method and metric the cases' sorted differences, their mean and its 95 % interval."""
    foreground = differences[differences["class"] == FOREGROUND]
    intervals = comparison[comparison["class"] == FOREGROUND].set_index(["method", "metric"])
    methods = list(foreground["method"].unique())
    figure = Figure(figsize=(3 * len(PLOTTED), 2.6 * len(methods) + 0.4), layout="constrained")
    axes = figure.subplots(len(methods), len(PLOTTED), squeeze=False)
    for row, method in zip(axes, methods, strict=True):
        for axis, metric in zip(row, PLOTTED, strict=True):
            chosen = (foreground["method"] == method) & (foreground["metric"] == metric)
            values = foreground.loc[chosen, "difference"].sort_values().to_numpy()
            better = values < 0 if metric in LOWER_IS_BETTER else values > 0
            axis.bar(range(len(values)), values, width=1, color=[BETTER if b else WORSE for b in better])
            statistics = intervals.loc[(method, metric)]
            axis.axhline(statistics["difference"], color="black", linewidth=1.2)
            axis.axhspan(statistics["ci_low"], statistics["ci_high"], color="black", alpha=0.2, linewidth=0)
            axis.set_title(NAMES[metric], fontsize=10)
            axis.set_xticks([])
        row[0].set_ylabel(method, parse_math=False)
    baseline = comparison["method"].iloc[0]
    figure.suptitle(
        f"Difference from {baseline}, one bar a case: blue is better, orange worse. Line and band: mean, 95 % interval",
        fontsize=10,
        parse_math=False,
    )
    return picture_file(figure, dpi=120)


def _classes(comparison: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the foreground's table and each class's; the table of a single class would repeat the foreground's."""
    tables = list(comparison.groupby("class", sort=False))
    return tables[:1] if len(tables) == 2 else tables


def _means(of_class: pd.DataFrame) -> pd.DataFrame:
    methods = of_class["method"].unique()
    cells = of_class.assign(cell=[_mean(row, row["method"] != methods[0]) for _, row in of_class.iterrows()])
    table = cells.pivot(index="method", columns="metric", values="cell").loc[methods, METRICS].rename(columns=UNITS)
    return table.assign(runs=of_class.groupby("method")["runs"].first()).reset_index()


def _mean(row: pd.Series, with_delta: bool) -> str:
    scale = SCALES[row["metric"]]
    deviation = f" ± {number(row['std'], scale)}" if row["runs"] > 1 else ""
    delta = f" ({number(row['delta'], scale, '+')})" if with_delta else ""
    return f"{number(row['mean'], scale)}{deviation}{delta}"


def _differences(of_class: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for _, row in of_class[of_class["cases"].notna()].iterrows():
        difference, low, high = (
            number(row[key], SCALES[row["metric"]], "+") for key in ("difference", "ci_low", "ci_high")
        )
        p = "< 0.001" if row["p"] < 0.001 else number(row["p"], digits=3)
        rows.append([row["method"], UNITS[row["metric"]], difference, f"{low} … {high}", p, f"{row['cases']:.0f}"])
    return pd.DataFrame(rows, columns=["method", "metric", "difference", "95 % interval", "p", "cases"])


def _empty(empty: pd.DataFrame) -> pd.DataFrame:
    """Return the counts; a metric has a column of its own if it leaves out other cases than Dice does."""
    columns = {"class": "class", "cases": "cases", "reference_empty": "reference empty", "counted": "of these counted"}
    columns["dice_left_out"] = "left out"
    for metric in METRICS[1:]:
        if (empty[f"{metric}_left_out"] != empty["dice_left_out"]).any():
            columns[f"{metric}_left_out"] = f"left out of {NAMES[metric]}"
    return empty[list(columns)].rename(columns=columns)
