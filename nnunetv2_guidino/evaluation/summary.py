"""The summary of an evaluation, nnU-Net's summary.json with more keys: make it, read it, show it as a table."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.evaluation.labels import LabelSet
from nnunetv2_guidino.evaluation.metrics import COLUMNS, COUNTS
from nnunetv2_guidino.files import read_json
from nnunetv2_guidino.printable import check_name


def summarize(results: list[dict[str, Any]], labels: LabelSet, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return nnU-Net's summary (metric_per_case, mean, foreground_mean), the classes' names, the settings, and the
    number of cases with an empty mask.
    """
    classes = {str(values): name for name, values in labels.classes.items()}
    per_class = {key: pd.DataFrame([result["metrics"][key] for result in results]) for key in classes}
    mean = pd.DataFrame({key: frame.mean() for key, frame in per_class.items()})  # without NaN, as nnU-Net does it
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
    """Return one row for each case and class: fold, case, class, the metrics, n_ref and n_pred."""
    rows = [
        {"fold": result.get("fold", ""), "case": result["case"], "class": name}
        | {column: result["metrics"][key][metric] for metric, column in COLUMNS.items()}
        | {count: result["metrics"][key][count] for count in COUNTS}
        for result in summary["metric_per_case"]
        for key, name in summary["classes"].items()
    ]
    return pd.DataFrame(rows)


def read_summary(file: Path) -> dict[str, Any]:
    """Read a summary.json of `guidino evaluate`.

    Raises:
        GuidinoError: If another program wrote it, or if it lacks a key that `case_table` needs.
    """
    summary = read_json(file, dict)
    if "settings" not in summary:
        raise GuidinoError(f"{file} was not written by guidino evaluate; score these predictions with it")
    for key, kind in (("settings", dict), ("classes", dict), ("metric_per_case", list)):
        if not isinstance(summary.get(key), kind) or (not summary[key] and key != "settings"):
            _refuse(file, key)
    for name in summary["classes"].values():
        if not isinstance(name, str):
            _refuse(file, "classes")
        check_name(name, f"{file}: classes")
    for i, entry in enumerate(summary["metric_per_case"]):
        _check_entry(entry, summary["classes"], file, f"metric_per_case[{i}]")
    return summary


def _check_entry(entry: Any, classes: Mapping[str, str], file: Path, where: str) -> None:
    if not isinstance(entry, dict) or not isinstance(entry.get("metrics"), dict):
        _refuse(file, f"{where}.metrics")
    if not isinstance(entry.get("case"), str) or not isinstance(entry.get("fold", ""), str):
        _refuse(file, f"{where}.case or .fold")
    check_name(entry["case"], f"{file}: {where}")
    for key in classes:
        scores = entry["metrics"].get(key)
        for name in (*COLUMNS, *COUNTS):
            if not isinstance(scores, dict) or not isinstance(scores.get(name), Real):
                _refuse(file, f"{where}.metrics.{key}.{name}")


def _refuse(file: Path, key: str) -> None:
    raise GuidinoError(f"{file}: {key} is not what guidino evaluate writes; score these predictions again")
