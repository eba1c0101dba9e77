"""What `guidino evaluate` writes: summary.json, cases.csv, report.md and report.html."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.evaluation.cases import Case
from nnunetv2_guidino.evaluation.labels import LabelSet
from nnunetv2_guidino.evaluation.metrics import COLUMNS, LOWER_IS_BETTER
from nnunetv2_guidino.evaluation.pictures import draw_case

METRICS = list(COLUMNS.values())
FOREGROUND = "foreground mean"
PICTURES = 4  # worst cases, and as many best ones


def summarize(results: list[dict[str, Any]], labels: LabelSet, settings: Mapping[str, Any]) -> dict[str, Any]:
    """nnU-Net's summary (metric_per_case, mean, foreground_mean), with what else is needed to read it: the classes'
    names, the settings, and how many cases had an empty mask.
    """
    classes = {str(values): name for name, values in labels.classes.items()}
    per_class = {key: pd.DataFrame([result["metrics"][key] for result in results]) for key in classes}
    mean = pd.DataFrame({key: frame.mean() for key, frame in per_class.items()})  # leaves NaN out, as nnU-Net does
    return {
        "metric_per_case": results,
        "mean": mean.to_dict(),
        "foreground_mean": mean.mean(axis=1).to_dict(),
        "classes": classes,
        "settings": dict(settings),
        "empty_cases": {key: _count_empty(frame) for key, frame in per_class.items()},
    }


def _count_empty(frame: pd.DataFrame) -> dict[str, int]:
    no_ref, no_pred = frame["n_ref"] == 0, frame["n_pred"] == 0
    return {
        "prediction": int((no_pred & ~no_ref).sum()),
        "reference": int((no_ref & ~no_pred).sum()),
        "both": int((no_ref & no_pred).sum()),
    }


def case_table(summary: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each case and class: fold, case, class, the metrics, n_ref and n_pred."""
    rows = [
        {"fold": result.get("fold", ""), "case": result["case"], "class": name}
        | {column: result["metrics"][key][metric] for metric, column in COLUMNS.items()}
        | {count: result["metrics"][key][count] for count in ("n_ref", "n_pred")}
        for result in summary["metric_per_case"]
        for key, name in summary["classes"].items()
    ]
    return pd.DataFrame(rows)


def write_report(
    folder: Path, summary: Mapping[str, Any], cases: Sequence[Case], reader: type, labels: LabelSet
) -> None:
    table = case_table(summary)
    score = table.groupby(["fold", "case"], sort=False)[METRICS].mean().reset_index()
    ranked = score.dropna(subset="dice").sort_values(["dice", "hd95"], ascending=[True, False]).index
    worst = list(ranked[:PICTURES])
    best = [i for i in reversed(ranked[-PICTURES:]) if i not in worst]
    figures = {
        i: (f"{cases[i].name}: Dice {score.dice[i]:.3f}, HD95 {score.hd95[i]:.1f}", draw_case(cases[i], reader, labels))
        for i in worst + best
    }
    sections = [("Worst cases", [figures[i] for i in worst]), ("Best cases", [figures[i] for i in best])]
    write_files(
        folder,
        {
            "summary.json": json.dumps(summary, indent=4, sort_keys=True),
            "cases.csv": table.drop(columns="fold").to_csv(index=False),
            "report.md": markdown(summary, table),
            "report.html": html(summary, table, sections),
        },
    )


def write_files(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write all files or, if that fails, none."""
    try:
        with staged(folder) as temporary:
            for name, content in contents.items():
                data = content if isinstance(content, bytes) else content.encode()
                (temporary / name).write_bytes(data)
    except OSError as error:
        raise GuidinoError(f"{folder} cannot be written: {error}") from error


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder. At the end its files move into `folder`; if the end is not reached, they vanish."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
        yield Path(temporary)
        for file in sorted(Path(temporary).rglob("*")):  # a folder before what is in it
            target = folder / file.relative_to(temporary)
            if file.is_dir():
                target.mkdir(exist_ok=True)
            else:
                file.replace(target)


def score_rows(table: pd.DataFrame, summary: Mapping[str, Any]) -> list[list[str]]:
    """Mean ± standard deviation over the cases for each class, and the mean of the classes' means."""
    header = ["class", *(f"{metric} {'↓' if metric in LOWER_IS_BETTER else '↑'}" for metric in COLUMNS)]
    groups = table.groupby("class", sort=False)[METRICS]
    means, deviations = groups.mean(), groups.std()
    rows = [[name, *(f"{means[m][name]:.3f} ± {deviations[m][name]:.3f}" for m in METRICS)] for name in means.index]
    return [header, *rows, [FOREGROUND, *(f"{summary['foreground_mean'][metric]:.3f}" for metric in COLUMNS)]]


def empty_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    header = ["class", "prediction empty (missed)", "reference empty (false alarm)", "both empty"]
    return [
        header,
        *([summary["classes"][k], *map(str, counts.values())] for k, counts in summary["empty_cases"].items()),
    ]


def explanation(summary: Mapping[str, Any]) -> str:
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
    parts = ["# Evaluation", explanation(summary), markdown_table(score_rows(table, summary))]
    return "\n\n".join([*parts, "Empty masks, in cases:", markdown_table(empty_rows(summary))]) + "\n"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]])


def html_table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html(
    summary: Mapping[str, Any], table: pd.DataFrame, sections: Sequence[tuple[str, Sequence[tuple[str, bytes]]]]
) -> str:
    """One file that asks for no other: the pictures are inside, and the policy forbids the browser all requests."""
    figures = "".join(
        f"<h2>{title}</h2><div class='cases'>" + "".join(_figure(*item) for item in pictures) + "</div>"
        for title, pictures in sections
        if pictures
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
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


def _figure(title: str, png: bytes) -> str:
    source = "data:image/png;base64," + base64.b64encode(png).decode()
    title = escape(title)
    return f"<figure><img alt='{title}' src='{source}'><figcaption>{title}</figcaption></figure>"
