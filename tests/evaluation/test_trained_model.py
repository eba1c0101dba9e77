"""evaluate and compare on models that nnU-Net's own commands trained."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluation_data import write_pngs
from nnunetv2.evaluation.evaluate_predictions import load_summary_json

COMMANDS = Path(sys.executable).parent
# a stock trainer cut short, found through nnU-Net's own nnUNet_extTrainer
TRAINER = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class nnUNetTrainerFewIterations(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 5, 1
"""
DATASET, CASES = "Dataset999_Discs", [f"disc_{i}" for i in range(6)]


@pytest.fixture(scope="module")
def nnunet(tmp_path_factory) -> Path:
    """nnU-Net's three folders with a data set of bright discs and two folds trained for a few iterations."""
    root = tmp_path_factory.mktemp("nnunet")
    environment = os.environ | {f"nnUNet_{name}": str(root / name) for name in ("raw", "preprocessed", "results")}
    environment |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_extTrainer": str(root / "trainers")}
    (root / "trainers").mkdir()
    (root / "trainers" / "nnUNetTrainerFewIterations.py").write_text(TRAINER)
    raw = root / "raw" / DATASET
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    masks = {name: np.hypot(y - rng.uniform(12, 20), x - rng.uniform(12, 20)) < rng.uniform(5, 9) for name in CASES}
    write_pngs(raw / "labelsTr", masks)
    write_pngs(raw / "imagesTr", {f"{n}_0000": 100 * m + rng.integers(50, 150, m.shape) for n, m in masks.items()})
    labels, channels = {"background": 0, "disc": 1}, {"0": "grey"}
    dataset = {"channel_names": channels, "labels": labels, "numTraining": len(CASES), "file_ending": ".png"}
    (raw / "dataset.json").write_text(json.dumps(dataset))

    def run(command: str, *arguments: str) -> None:
        result = subprocess.run([COMMANDS / command, *arguments], env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr

    run("nnUNetv2_plan_and_preprocess", "-d", "999", "-c", "2d", "-np", "1", "-npfp", "1")
    splits = [{"train": CASES[3:], "val": CASES[:3]}, {"train": CASES[:3], "val": CASES[3:]}]
    (root / "preprocessed" / DATASET / "splits_final.json").write_text(json.dumps(splits))
    for fold in "01":
        run("nnUNetv2_train", "999", "2d", fold, "-tr", "nnUNetTrainerFewIterations", "-device", "cpu")
    return root


@pytest.mark.slow
def test_trained_model(nnunet, guidino, monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_preprocessed", str(nnunet / "preprocessed"))
    model = nnunet / "results" / DATASET / "nnUNetTrainerFewIterations__nnUNetPlans__2d"
    guidino("evaluate", "-m", model, "-np", 1, "-i", nnunet / "raw" / DATASET / "imagesTr")
    ours = load_summary_json(str(model / "evaluation" / "summary.json"))["metric_per_case"]
    theirs = [
        entry
        for fold in "01"
        for entry in load_summary_json(str(model / f"fold_{fold}" / "validation" / "summary.json"))["metric_per_case"]
    ]
    assert len(theirs) == len(CASES)
    for entry, expected in zip(ours, theirs, strict=True):
        assert Path(entry["prediction_file"]).samefile(expected["prediction_file"])
        for name, value in expected["metrics"][1].items():
            assert entry["metrics"][1][name] == pytest.approx(value, nan_ok=True)

    guidino("compare", f"one={model}", f"again={model / 'evaluation'}", "-o", tmp_path)
    with (tmp_path / "comparison.csv").open() as file:
        row = next(csv.DictReader(file))
    means = [np.mean([entry["metrics"][1]["Dice"] for entry in theirs[i : i + 3]]) for i in (0, 3)]
    assert float(row["mean"]) == pytest.approx(np.mean(means))
    assert float(row["std"]) == pytest.approx(np.std(means, ddof=1))
    assert row["runs"] == "2"
