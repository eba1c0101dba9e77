"""evaluate and compare on a plain and a guided model that nnU-Net's own commands trained."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from nnunet_workspace import DATASET
from nnunetv2.evaluation.evaluate_predictions import load_summary_json


def validation_summary(model: Path) -> list[dict]:
    return load_summary_json(str(model / "fold_0" / "validation" / "summary.json"))["metric_per_case"]


@pytest.mark.slow
def test_trained_models(workspace, trained_models, guidino, monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_preprocessed", str(workspace.preprocessed))
    plain, guided = trained_models["plain"], trained_models["guided"]
    for model in (plain, guided):
        guidino("evaluate", "-m", model, "-np", 1, "-i", workspace.raw / DATASET / "imagesTr")
        ours = json.loads((model / "evaluation" / "summary.json").read_text())["metric_per_case"]
        for entry, expected in zip(ours, validation_summary(model), strict=True):
            assert Path(entry["prediction_file"]).samefile(expected["prediction_file"])
            theirs = expected["metrics"][1]
            assert [entry["metrics"]["1"][name] for name in theirs] == pytest.approx([*theirs.values()], nan_ok=True)

    guidino("compare", f"plain={plain}", f"guided={guided}", "-o", tmp_path)
    with (tmp_path / "comparison.csv").open() as file:
        dice = [row for row in csv.DictReader(file) if (row["class"], row["metric"]) == ("lesion", "dice")]
    means = [np.nanmean([c["metrics"][1]["Dice"] for c in validation_summary(model)]) for model in (plain, guided)]
    assert [float(row["mean"]) for row in dice] == pytest.approx(means)
    assert float(dice[1]["difference"]) == pytest.approx(means[1] - means[0])
