"""What `guidino compare` shows: tables in Markdown and LaTeX, and the cases' differences as a plot."""

from __future__ import annotations

import io
from math import isnan

import pandas as pd
from matplotlib.figure import Figure

from nnunetv2_guidino.evaluation.metrics import COLUMNS, FOREGROUND, LOWER_IS_BETTER
from nnunetv2_guidino.evaluation.report import markdown_table
from nnunetv2_guidino.evaluation.text import in_latex, in_markdown

# column of cases.csv -> heading. Ratios are shown in percent, as in most papers
NAMES = {column: name for name, column in COLUMNS.items()}
HEADINGS = {column: f"{name} ↓" if name in LOWER_IS_BETTER else f"{name} ↑ (%)" for column, name in NAMES.items()}
PLOTTED = ("dice", "iou", "hd95", "nsd")
EMPTY_NOTE = (
    "Finding nothing where nothing is, is right. Where any run predicts something there, the case counts for every "
    "run: those that are right get 1 (HD95 0). Where no run does, the case is left out for all; so is, from a metric, "
    "a case for which any run has no value."
)
FOREGROUND_NOTE = (
    " The foreground's is the mean over the classes that count in a case, so cases weigh alike; in the table of means "
    "the classes do."
)
BETTER, WORSE = "#0072B2", "#D55E00"


def markdown(comparison: pd.DataFrame, empty: pd.DataFrame) -> str:
    """Means, paired differences, and how many cases count.

    Args:
        comparison: One row for each class, method and metric, as in comparison.csv.
        empty: One row for each class, as `count_empty` returns it.
    """
    baseline = in_markdown(comparison["method"].iloc[0])
    parts = [
        "Mean ± standard deviation over runs (seeds and folds); in parentheses the difference of the means "
        f"from {baseline}. HD95 is in the unit of the files' spacing (PNG: pixels)."
    ]
    for name, table in _classes(comparison):
        parts += [f"## {in_markdown(name)}", markdown_table(_mean_rows(table))]
    if comparison["method"].nunique() > 1:
        parts.append(
            f"# Paired differences from {baseline}\n\nPer case, averaged over seeds: mean difference with its 95 % "
            "interval (bootstrap over cases and seeds), and p of Wilcoxon's signed-rank test over cases (two-sided, "
            "not corrected for several tests)." + (FOREGROUND_NOTE if len(empty) > 1 else "")
        )
        for name, table in _classes(comparison):
            parts += [f"## {in_markdown(name)}", markdown_table(_difference_rows(table))]
    if _left_out(empty) or empty["reference_empty"].any():
        parts += ["# Empty references", EMPTY_NOTE, markdown_table(_empty_rows(empty))]
    return "# Comparison\n\n" + "\n\n".join(parts) + "\n"


def _left_out(empty: pd.DataFrame) -> list[str]:
    """The metrics that leave cases out."""
    return [metric for metric in NAMES if empty[f"{metric}_left_out"].any()]


def _empty_rows(empty: pd.DataFrame) -> list[list[str]]:
    """Without the columns of metrics that leave out what Dice does, which are all but for `--empty ignore`."""
    metrics = [m for m in NAMES if m == "dice" or (empty[f"{m}_left_out"] != empty["dice_left_out"]).any()]
    header = ["class", "cases", "reference empty", "of these counted", "left out"]
    rows = [header + [f"left out of {NAMES[metric]}" for metric in metrics[1:]]]
    for _, values in empty.iterrows():
        columns = ["cases", "reference_empty", "counted", *(f"{metric}_left_out" for metric in metrics)]
        rows.append([values["class"], *(str(values[column]) for column in columns)])
    return rows


def latex(comparison: pd.DataFrame) -> str:
    """One tabular (package booktabs) for each class."""
    tabulars = []
    for name, table in _classes(comparison):
        header, *rows = [[in_latex(cell) for cell in row] for row in _mean_rows(table)]
        lines = [
            f"% {name}",
            rf"\begin{{tabular}}{{l{'c' * (len(header) - 1)}}}",
            r"\toprule",
            " & ".join(header) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        tabulars.append("\n".join(lines))
    return "\n\n".join(tabulars) + "\n"


def differences_png(differences: pd.DataFrame, comparison: pd.DataFrame) -> bytes:
    """For each method and metric the cases' sorted differences, with their mean and its 95 % interval."""
    foreground = differences[differences["class"] == FOREGROUND]
    intervals = comparison[comparison["class"] == FOREGROUND].set_index(["method", "metric"])
    methods = list(foreground["method"].unique())
    figure = Figure(figsize=(3 * len(PLOTTED), 2.6 * len(methods) + 0.4), layout="constrained")
    axes = figure.subplots(len(methods), len(PLOTTED), squeeze=False)
    for row, method in zip(axes, methods, strict=True):
        for axis, metric in zip(row, PLOTTED, strict=True):
            chosen = (foreground["method"] == method) & (foreground["metric"] == metric)
            values = foreground.loc[chosen, "difference"].sort_values().to_numpy()
            better = values < 0 if NAMES[metric] in LOWER_IS_BETTER else values > 0
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
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    return png.getvalue()


def _classes(comparison: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The tables to show; with a single class its own would repeat the foreground's."""
    tables = list(comparison.groupby("class", sort=False))
    return tables[:1] if len(tables) == 2 else tables


def _mean_rows(table: pd.DataFrame) -> list[list[str]]:
    baseline = table["method"].iloc[0]
    rows = [["method", *HEADINGS.values(), "runs"]]
    for method, group in table.groupby("method", sort=False):
        values = group.set_index("metric")
        cells = [_mean_cell(metric, values.loc[metric], method != baseline) for metric in HEADINGS]
        rows.append([str(method), *cells, str(values["runs"].iloc[0])])
    return rows


def _mean_cell(metric: str, values: pd.Series, with_delta: bool) -> str:
    scale = _scale(metric)
    deviation = f" ± {_number(values['std'] * scale)}" if values["runs"] > 1 else ""
    delta = f" ({_number(values['delta'] * scale, '+')})" if with_delta else ""
    return f"{_number(values['mean'] * scale)}{deviation}{delta}"


def _number(value: float, sign: str = "") -> str:
    return "–" if isnan(value) else f"{value:{sign}.2f}"


def _difference_rows(table: pd.DataFrame) -> list[list[str]]:
    rows = [["method", "metric", "difference", "95 % interval", "p", "cases"]]
    for _, values in table[table["cases"].notna()].iterrows():
        scale = _scale(values["metric"])
        interval = f"{_number(values['ci_low'] * scale, '+')} … {_number(values['ci_high'] * scale, '+')}"
        p = "< 0.001" if values["p"] < 0.001 else "–" if isnan(values["p"]) else f"{values['p']:.3f}"
        heading = HEADINGS[values["metric"]]
        difference = f"{values['difference'] * scale:+.2f}"
        rows.append([values["method"], heading, difference, interval, p, f"{values['cases']:.0f}"])
    return rows


def _scale(metric: str) -> int:
    return 1 if NAMES[metric] in LOWER_IS_BETTER else 100
