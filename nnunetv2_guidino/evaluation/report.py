"""What `guidino evaluate` writes: summary.json, cases.csv, report.md and report.html."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from nnunetv2_guidino.evaluation.cases import PredictedCase
from nnunetv2_guidino.evaluation.metrics import COLUMNS, FOREGROUND, LOWER_IS_BETTER, METRICS
from nnunetv2_guidino.evaluation.pictures import draw_case
from nnunetv2_guidino.evaluation.reading import PairReader
from nnunetv2_guidino.evaluation.summary import case_table
from nnunetv2_guidino.evaluation.text import in_csv, in_markdown
from nnunetv2_guidino.files import filled_folder

PICTURES = 4  # worst cases, and as many best ones
POLICY = (  # the browser asks for no other file
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    "style-src 'unsafe-inline'\">"
)


def write_report(folder: Path, summary: Mapping[str, Any], cases: Sequence[PredictedCase], pairs: PairReader) -> None:
    """Write the four files, over those of an earlier run; all or none of them.

    Raises:
        GuidinoError: If the folder cannot be written.
    """
    table = case_table(summary)
    score = table.groupby(["fold", "case"], sort=False)[METRICS].mean().reset_index()
    ranked = score.dropna(subset="dice").sort_values(["dice", "hd95"], ascending=[True, False]).index
    worst = list(ranked[:PICTURES])
    best = [i for i in reversed(ranked[-PICTURES:]) if i not in worst]
    figures = {
        i: (
            f"{cases[i].name}: Dice {_number(score.dice[i])}, HD95 {_number(score.hd95[i], 1)}",
            draw_case(cases[i], pairs),
        )
        for i in worst + best
    }
    sections = [("Worst cases", [figures[i] for i in worst]), ("Best cases", [figures[i] for i in best])]
    write_files(
        folder,
        {
            "summary.json": json.dumps(summary, indent=4, sort_keys=True),
            "cases.csv": csv(table.drop(columns="fold")),
            "report.md": markdown(summary, table),
            "report.html": html(summary, table, sections),
        },
    )


def write_files(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write all files or, if that fails, none; raises GuidinoError then."""
    with filled_folder(folder) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def csv(table: pd.DataFrame) -> str:
    """The table as CSV, in which no name is a formula."""
    return str(table.map(lambda cell: in_csv(cell) if isinstance(cell, str) else cell).to_csv(index=False))


def score_rows(table: pd.DataFrame, summary: Mapping[str, Any]) -> list[list[str]]:
    """Mean ± standard deviation over the cases for each class, and the mean of the classes' means."""
    header = ["class", *(f"{metric} {'↓' if metric in LOWER_IS_BETTER else '↑'}" for metric in COLUMNS)]
    groups = table.groupby("class", sort=False)[METRICS]
    means, deviations = groups.mean(), groups.std()
    rows = [
        [name, *(f"{_number(means[m][name])} ± {_number(deviations[m][name])}" for m in METRICS)]
        for name in means.index
    ]
    return [header, *rows, [FOREGROUND, *(_number(summary["foreground_mean"][metric]) for metric in COLUMNS)]]


def _number(value: float, digits: int = 3) -> str:
    return "–" if isnan(value) else f"{value:.{digits}f}"


def empty_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """How many cases of each class have an empty mask."""
    header = ["class", "prediction empty (missed)", "reference empty (false alarm)", "both empty"]
    return [
        header,
        *([summary["classes"][k], *map(str, counts.values())] for k, counts in summary["empty_cases"].items()),
    ]


def explanation(summary: Mapping[str, Any]) -> str:
    """What the numbers are, and how empty masks count."""
    settings = summary["settings"]
    treatment = {
        "penalize": "HD95 is the image's diagonal and the undefined one of precision and recall is 0",
        "ignore": "HD95 and the undefined one of precision and recall are left out of the means",
    }[settings["empty"]]
    return (
        f"{len(summary['metric_per_case'])} cases, mean ± standard deviation over cases. HD95 is in the unit of the "
        f"files' spacing (PNG: pixels), NSD has a tolerance of {settings['nsd_tolerance']}. Where one of reference and "
        f"prediction is empty, {treatment}. Where both are empty, the case is left out of the class's means."
    )


def markdown(summary: Mapping[str, Any], table: pd.DataFrame) -> str:
    """The report without pictures."""
    parts = ["# Evaluation", explanation(summary), markdown_table(score_rows(table, summary))]
    return "\n\n".join([*parts, "Empty masks, in cases:", markdown_table(empty_rows(summary))]) + "\n"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first row is its header, the first column is aligned to the left."""
    lines = ["| " + " | ".join(in_markdown(cell) for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]])


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """A table in HTML; the first row is its header."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html(
    summary: Mapping[str, Any], table: pd.DataFrame, sections: Sequence[tuple[str, Sequence[tuple[str, bytes]]]]
) -> str:
    """One file that asks for no other: the pictures are inside, and the policy forbids the browser all requests."""
    figures = "".join(
        f"<h2>{title}</h2><div class='cases'>" + "".join(figure(*item) for item in pictures) + "</div>"
        for title, pictures in sections
        if pictures
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>
{POLICY}
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
.cases {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; }} figcaption {{ font-size: .9em; overflow-wrap: anywhere; }} img {{ width: 100%; }}
</style></head><body>
<h1>Evaluation</h1><p>{escape(explanation(summary))}</p>
{html_table(score_rows(table, summary))}
<p>Empty masks, in cases:</p>
{html_table(empty_rows(summary))}
{figures}
</body></html>
"""


def figure(title: str, picture: bytes, kind: str = "png") -> str:
    """A picture in HTML with its title below; the file's bytes are inside."""
    source = f"data:image/{kind};base64," + base64.b64encode(picture).decode()
    title = escape(title)
    return f"<figure><img alt='{title}' src='{source}'><figcaption>{title}</figcaption></figure>"
