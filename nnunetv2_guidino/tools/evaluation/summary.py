"""The summary of an evaluation, nnU-Net's summary.json with more keys: make it, read it, show it as a table."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json
from nnunetv2_guidino.printable import check_name
from nnunetv2_guidino.tools.evaluation.metrics import COLUMNS, COUNTS
from nnunetv2_guidino.tools.evaluation.scored_labels import LabelSet


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

    def check(fits: bool, key: str) -> None:
        if not fits:
            raise GuidinoError(f"{file}: {key} is not what guidino evaluate writes; score these predictions again")

    for key, kind in (("settings", dict), ("classes", dict), ("metric_per_case", list)):
        check(isinstance(summary.get(key), kind) and (bool(summary[key]) or key == "settings"), key)
    for name in summary["classes"].values():
        check(isinstance(name, str), "classes")
        check_name(name, f"{file}: classes")
    for i, entry in enumerate(summary["metric_per_case"]):
        key = f"metric_per_case[{i}]"
        check(isinstance(entry, dict) and isinstance(entry.get("metrics"), dict), f"{key}.metrics")
        check(isinstance(entry.get("case"), str) and isinstance(entry.get("fold", ""), str), f"{key}.case or .fold")
        check_name(entry["case"], f"{file}: {key}")
        for value, name in product(summary["classes"], (*COLUMNS, *COUNTS)):
            scores = entry["metrics"].get(value)
            check(isinstance(scores, dict) and isinstance(scores.get(name), Real), f"{key}.metrics.{value}.{name}")
    return summary
