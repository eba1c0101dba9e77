"""`guidino evaluate -m`: the validation of a trained model."""

import json
from pathlib import Path

import pytest
from evaluation_data import rows, square, write_pngs
from nnunetv2.evaluation.evaluate_predictions import load_summary_json


@pytest.fixture
def model_folder(tmp_path, monkeypatch) -> Path:
    """Two validated folds of two cases each, in nnU-Net's layout."""
    dataset = {"labels": {"background": 0, "object": 1}, "file_ending": ".png"}
    preprocessed = tmp_path / "preprocessed" / "Dataset001_X"
    write_pngs(preprocessed / "gt_segmentations", {name: square(5, 5) for name in "abcd"})
    splits = [{"train": ["c", "d"], "val": ["a", "b"]}, {"train": ["a", "b"], "val": ["c", "d"]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    model = tmp_path / "results" / "Dataset001_X" / "nnUNetTrainer__nnUNetPlans__2d"
    for fold, split in enumerate(splits):
        write_pngs(model / f"fold_{fold}" / "validation", {name: square(5, 5 + fold) for name in split["val"]})
    (model / "dataset.json").write_text(json.dumps(dataset))
    (model / "plans.json").write_text('{"dataset_name": "Dataset001_X"}')
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    return model


def test_model_folder(model_folder, guidino):
    guidino("evaluate", "-m", model_folder, "-np", 1)
    summary = load_summary_json(str(model_folder / "evaluation" / "summary.json"))
    assert [(entry["case"], entry["fold"]) for entry in summary["metric_per_case"]] == [
        *zip("abcd", "0011", strict=True)
    ]
    assert [float(row["dice"]) for row in rows(model_folder / "evaluation")] == [1, 1, 7 / 8, 7 / 8]


@pytest.mark.parametrize("how", ["folder", "case", "split", "preprocessed", "model"])
def test_incomplete_validation_is_an_error(how, model_folder, guidino, monkeypatch):
    arguments = ["-m", model_folder]
    match how:
        case "folder":
            (model_folder / "fold_2").mkdir()
            message = r"fold_2/validation does not exist; finish this fold with nnUNetv2_train … --val"
        case "case":
            (model_folder / "fold_1" / "validation" / "d.png").unlink()
            message = r"1 case \(d\) of the split of fold 1 missing in .*fold_1/validation"
        case "split":
            write_pngs(model_folder / "fold_7" / "validation", {"a": square(5, 5)})
            message = r"splits_final\.json has 2 folds; there is no fold 7"
        case "preprocessed":
            monkeypatch.delenv("nnUNet_preprocessed")
            message = "nnUNet_preprocessed is not set"
        case "model":
            arguments = ["-m", model_folder.parent]
            message = r"Dataset001_X/dataset\.json does not exist"
    with pytest.raises(AssertionError, match=message):
        guidino("evaluate", *arguments)
    assert not (model_folder / "evaluation").exists()
