"""evaluate and compare on a plain and a guided model that nnU-Net's own commands trained."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from nnunet_workspace import DATASET, TINY_PLANS, Workspace, write_dataset, write_tiny_plans
from nnunetv2.evaluation.evaluate_predictions import load_summary_json

from nnunetv2_guidino import registration_folder

PLAIN, GUIDED = (f"nnUNetTrainerGuiDINO{kind}_1epochs_5iterations" for kind in ("Baseline", ""))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, tiny_encoder) -> Workspace:
    """Both trainers' models of fold 0, on eight images of bright discs."""
    workspace = Workspace(tmp_path_factory.mktemp("nnunet"))
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    cases = {}
    for i in range(8):
        mask = np.hypot(y - rng.uniform(24, 40), x - rng.uniform(24, 40)) < rng.uniform(10, 20)
        image = 100 * mask[..., None] + rng.integers(50, 150, (64, 64, 3))
        cases[f"disc_{i}"] = image.astype(np.uint8), mask
    write_dataset(workspace.raw / DATASET, cases, validation=4)
    workspace.run("nnUNetv2_plan_and_preprocess", "-d", 901, "-c", "2d")
    write_tiny_plans(workspace)
    shutil.copy(workspace.raw / DATASET / "splits_final.json", workspace.preprocessed / DATASET)
    environment = {"nnUNet_extTrainer": str(registration_folder()), "GUIDINO_ENCODER": str(tiny_encoder("dinov3"))}
    for trainer in (PLAIN, GUIDED):
        options = ("901", "2d", "0", "-p", TINY_PLANS, "-tr", trainer, "-device", "cpu")
        workspace.run("nnUNetv2_train", *options, **environment)
    return workspace


def validation_summary(model: Path) -> list[dict]:
    return load_summary_json(str(model / "fold_0" / "validation" / "summary.json"))["metric_per_case"]


@pytest.mark.slow
def test_trained_models(workspace, guidino, monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_preprocessed", str(workspace.preprocessed))
    plain, guided = (workspace.model_folder(trainer) for trainer in (PLAIN, GUIDED))
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
