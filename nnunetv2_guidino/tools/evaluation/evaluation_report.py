"""Reports of an evaluation: summary.json, cases.csv, report.md and report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nnunetv2_guidino.files import write_files
from nnunetv2_guidino.tools.drawing.pages import Section, csv, html, markdown, number
from nnunetv2_guidino.tools.evaluation.case_pictures import draw_case
from nnunetv2_guidino.tools.evaluation.cases import PredictedCase
from nnunetv2_guidino.tools.evaluation.metrics import COLUMNS, FOREGROUND, HEADINGS, METRICS
from nnunetv2_guidino.tools.evaluation.reading import PairReader
from nnunetv2_guidino.tools.evaluation.summary import case_table

PICTURES = 4  # worst cases, and as many best ones
EMPTY_COLUMNS = {
    "prediction": "prediction empty (missed)",
    "reference": "reference empty (false alarm)",
    "both": "both empty",
}


def write_report(folder: Path, summary: Mapping[str, Any], cases: Sequence[PredictedCase], pairs: PairReader) -> None:
    """Write the four files over those of an earlier run, all or none of them.

    Raises:
        GuidinoError: If the folder cannot be written.
    """
    table = case_table(summary)
    sections = [
        Section(text=_explanation(summary), table=_scores(table, summary)),
        Section(text="Empty masks, in cases:", table=_empty_cases(summary)),
    ]
    contents = {
        "summary.json": json.dumps(summary, indent=4, sort_keys=True),
        "cases.csv": csv(table.drop(columns="fold")),
        "report.md": markdown("Evaluation", sections),
        "report.html": html("Evaluation", sections + _pictures(table, cases, pairs)),
    }
    write_files(folder, contents)


def _pictures(table: pd.DataFrame, cases: Sequence[PredictedCase], pairs: PairReader) -> list[Section]:
    score = table.groupby(["fold", "case"], sort=False)[METRICS].mean().reset_index()
    ranked = score.dropna(subset="dice").sort_values(["dice", "hd95"], ascending=[True, False]).index
    worst = list(ranked[:PICTURES])
    best = [i for i in reversed(ranked[-PICTURES:]) if i not in worst]

    def picture(i: int) -> tuple[str, bytes]:
        title = f"{cases[i].name}: Dice {number(score.dice[i], digits=3)}, HD95 {number(score.hd95[i], digits=1)}"
        return title, draw_case(cases[i], pairs)

    chosen = {"Worst cases": worst, "Best cases": best}
    return [Section(title, pictures=[picture(i) for i in places]) for title, places in chosen.items() if places]


def _scores(table: pd.DataFrame, summary: Mapping[str, Any]) -> pd.DataFrame:
    """Return mean ± standard deviation over the cases for each class, and the mean of the classes' means."""
    groups = table.groupby("class", sort=False)[METRICS]
    means, deviations = (values.map(number, digits=3) for values in (groups.mean(), groups.std()))
    scores = means + " ± " + deviations
    scores.loc[FOREGROUND] = [number(summary["foreground_mean"][name], digits=3) for name in COLUMNS]
    return scores.rename(columns=HEADINGS).reset_index()


def _empty_cases(summary: Mapping[str, Any]) -> pd.DataFrame:
    """Return the number of cases with an empty mask for each class."""
    counts = pd.DataFrame(summary["empty_cases"].values()).rename(columns=EMPTY_COLUMNS)
    counts.insert(0, "class", [summary["classes"][key] for key in summary["empty_cases"]])
    return counts


def _explanation(summary: Mapping[str, Any]) -> str:
    settings = summary["settings"]
    treatment = {
        "penalize": "HD95 is the image's diagonal, and precision or recall is 0 where it is undefined",
        "ignore": "the means leave out HD95, and precision or recall where it is undefined",
    }[settings["empty"]]
    return (
        f"{len(summary['metric_per_case'])} cases, mean ± standard deviation over cases. HD95 is in the unit of the "
        f"files' spacing (PNG: pixels). The tolerance of NSD is {settings['nsd_tolerance']}. If either the reference "
        f"or the prediction is empty, {treatment}. If both are empty, the class's means leave out the case."
    )
