"""Write tables and plots of docs/explanation/does_it_help.md from the summaries of benchmarks in docs/benchmarks.

A benchmark's small CSV is the summary.csv that `guidino benchmark` writes into its output folder:

    cp guidino_benchmark/NAME/summary.csv docs/benchmarks/NAME.csv
    python docs/tools/help_page.py

On the page, `<!-- benchmark: NAME -->` … `<!-- end of the benchmark -->` gets a table of each data set of NAME, and a
plot over the number of training cases if there are several. `<!-- all benchmarks -->` …
`<!-- end of all benchmarks -->` gets one plot of the differences in all benchmarks whose first method is a plain one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd

from nnunetv2_guidino.display import picture_file
from nnunetv2_guidino.lab.benchmark.benchmark_report import with_interval
from nnunetv2_guidino.lab.benchmark.plots import CELL, differences, heading, low_data
from nnunetv2_guidino.lab.benchmark.settings import TEXT, read_yaml
from nnunetv2_guidino.tools.drawing.pages import markdown_table, number
from nnunetv2_guidino.tools.evaluation.metrics import FOREGROUND
from nnunetv2_guidino.tools.guide.guide_alone import ANY_CLASS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, BENCHMARKS = DOCS / "explanation" / "does_it_help.md", DOCS / "benchmarks"
ONE = re.compile(r"(<!-- benchmark: (.+?) -->\n).*?(<!-- end of the benchmark -->)", re.DOTALL)
ALL = re.compile(r"(<!-- all benchmarks -->\n).*?(<!-- end of all benchmarks -->)", re.DOTALL)


def read_summary(name: str, benchmarks: Path = BENCHMARKS) -> pd.DataFrame:
    """Return the summary of a benchmark. Numbers of training cases are texts, because one of them is "all"."""
    return pd.read_csv(benchmarks / f"{name}.csv", dtype={"training_cases": str})


def table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each method on one data set, with the scores of the foreground and of the guide."""
    scores = {
        "Dice": ("dice", ""),
        "Δ Dice": ("dice_difference", "+"),
        "IoU": ("iou", ""),
        "Δ IoU": ("iou_difference", "+"),
    }
    rows = []
    for method, of_method in summary.groupby("method", sort=False):
        by_class = of_method.set_index("class")
        values = by_class.loc[FOREGROUND]
        guide = by_class.loc[ANY_CLASS] if ANY_CLASS in by_class.index else values
        row = [str(method), *(with_interval(values, column, sign) or "–" for column, sign in scores.values())]
        row += [number(guide.get("guide_dice"), 100), with_interval(guide, "above_guide", "+") or "–"]
        row += [number(guide.get("best_dice"), 100), number(guide.get("calibration_error"), digits=3)]
        rows.append([*row, *(number(values[column], digits=0) for column in ("trainings", "seconds"))])
    columns = ["method", *scores, "guide alone", "above it", "its best", "ECE", "trainings", "s each"]
    return pd.DataFrame(rows, columns=columns)


def section(name: str, summary: pd.DataFrame, pictures: Path) -> str:
    """Return the section of a benchmark in Markdown, and write its plot beside the page."""
    parts = []
    for names, of_cell in summary.groupby(CELL, sort=False):
        parts += [f"**{heading(names)}**", markdown_table(table(of_cell))]
    if summary["training_cases"].nunique() > 1:
        file = pictures / f"help_{name}.png"
        file.write_bytes(picture_file(low_data(summary), dpi=110))
        parts.append(f"![Dice over the number of training cases, with 95 % intervals]({file.name})")
    return "\n\n".join(parts) + "\n"


def joined(summaries: dict[str, pd.DataFrame], benchmarks: Path) -> pd.DataFrame:
    """Join all rows under the titles of their matrices. Trainings that several matrices share occur once."""
    titles = {name: read_yaml(benchmarks / f"{name}.yaml").value("title", TEXT, name) for name in summaries}
    rows = pd.concat([summary.assign(title=titles[name]) for name, summary in summaries.items()])
    rows = rows.drop_duplicates([*CELL, "method", "class", "dice", "dice_difference"])
    return rows.assign(dataset=rows["title"])


def page(text: str, benchmarks: Path, pictures: Path) -> str:
    """Return the page with its tables renewed, and write the plots into `pictures`."""
    names = [name for _, name, _ in ONE.findall(text)]
    summaries = {name: read_summary(name, benchmarks) for name in names}
    text = ONE.sub(
        lambda found: found[1] + "\n" + section(found[2], summaries[found[2]], pictures) + "\n" + found[3], text
    )
    if names and ALL.search(text):
        of_plain = {name: rows for name, rows in summaries.items() if rows["method"].iloc[0].startswith("plain")}
        (pictures / "help.png").write_bytes(picture_file(differences(joined(of_plain, benchmarks)), dpi=110))
        picture = "![Mean paired differences in Dice from plain nnU-Net, with 95 % intervals](help.png)"
        text = ALL.sub(lambda found: f"{found[1]}\n{picture}\n\n{found[2]}", text)
    return text


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    file.write_text(page(file.read_text(encoding="utf-8"), BENCHMARKS, file.parent), encoding="utf-8")
