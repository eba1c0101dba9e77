"""`guidino evaluate` on folders and model folders."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from evaluation_data import square, write_nifti, write_pngs
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder, load_summary_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.evaluation.labels import LabelSet, label_set, parse_labels
from nnunetv2_guidino.evaluation.pictures import agreement_map


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open() as file:
        return list(csv.DictReader(file))


def test_folders_over_two_processes(folders, guidino, tmp_path):
    gt, pred = folders
    guidino("evaluate", "-gt", gt, "-pred", pred, "-o", tmp_path / "out", "-np", 2)
    table = rows(tmp_path / "out")
    header = ["case", "class", "dice", "iou", "hd95", "nsd", "precision", "recall", "n_ref", "n_pred"]
    assert list(table[0]) == header
    assert [row["case"] for row in table] == ["a", "b", "c", "d"]
    assert [float(row["dice"]) for row in table] == pytest.approx([1, 7 / 8, 6 / 8, 5 / 8])
    assert [float(row["hd95"]) for row in table] == pytest.approx([0, 1, 2, 3])
    summary = load_summary_json(str(tmp_path / "out" / "summary.json"))
    assert summary["foreground_mean"]["Dice"] == pytest.approx(np.mean([1, 7 / 8, 6 / 8, 5 / 8]))
    assert "0.812 ± 0.161" in (tmp_path / "out" / "report.md").read_text()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cases.csv",
        "report.html",
        "report.md",
        "summary.json",
    ]


def test_report_shows_worst_and_best_and_asks_for_nothing(folders, guidino, tmp_path):
    gt, pred = folders
    images = write_pngs(tmp_path / "images", {f"{n}_0000": np.full((40, 50, 3), 99) for n in "abcd"})
    guidino("evaluate", "-gt", gt, "-pred", pred, "-o", tmp_path, "-i", images, "-np", 1)
    html = (tmp_path / "report.html").read_text()
    assert re.findall(r"<figcaption>(\w)", html) == ["d", "c", "b", "a"]
    sources = re.findall(r"(?:src|href)=['\"]([^'\"]*)", html)
    assert len(sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "default-src 'none'" in html


REGIONS = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
LABELS = {"background": 0, "edema": 1, "core": 2, "ignore": 3}


@pytest.mark.parametrize("labels", [REGIONS, LABELS], ids=["regions", "labels"])
def test_equals_nnunet_in_3d_with_ignore_label(labels, guidino, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("p.1", "q"):
        reference = rng.integers(0, 4, (6, 12, 10)).astype(np.uint8)
        prediction = np.where(rng.random(reference.shape) < 0.6, reference % 3, 0).astype(np.uint8)
        write_nifti(tmp_path / "gt" / f"{name}.nii.gz", reference, (3, 1, 1))
        write_nifti(tmp_path / "pred" / f"{name}.nii.gz", prediction, (3, 1, 1))
    dataset = {"labels": labels, "file_ending": ".nii.gz", "regions_class_order": [1, 2]}
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    gt, pred, out = str(tmp_path / "gt"), str(tmp_path / "pred"), tmp_path / "out"
    guidino("evaluate", "-gt", gt, "-pred", pred, "-o", out, "-np", 1)

    classes = [(1, 2), 2] if labels is REGIONS else [1, 2]
    expected = compute_metrics_on_folder(gt, pred, None, SimpleITKIO(), ".nii.gz", classes, 3, 1)
    found = load_summary_json(str(out / "summary.json"))
    for theirs, ours in zip(expected["metric_per_case"], found["metric_per_case"], strict=True):
        assert theirs["prediction_file"] == ours["prediction_file"]
        for key, values in theirs["metrics"].items():
            assert {name: ours["metrics"][key][name] for name in values} == pytest.approx(values)
    for key, values in expected["mean"].items():
        assert {name: found["mean"][key][name] for name in values} == pytest.approx(values)
    assert found["foreground_mean"]["Dice"] == pytest.approx(expected["foreground_mean"]["Dice"])


def test_distances_use_the_file_spacing(guidino, tmp_path):
    reference, prediction = np.zeros((2, 5, 9, 9), np.uint8)
    reference[1, 4, 4] = prediction[3, 4, 4] = 1
    for name, array in (("gt", reference), ("pred", prediction)):
        write_nifti(tmp_path / name / "a.nii.gz", array, (2.5, 0.5, 0.5))
    common = ["-gt", tmp_path / "gt", "-pred", tmp_path / "pred", "-o", tmp_path / "out", "--labels", "x=1", "-np", 1]
    guidino("evaluate", *common)
    assert float(rows(tmp_path / "out")[0]["hd95"]) == 5
    assert float(rows(tmp_path / "out")[0]["nsd"]) == 0
    guidino("evaluate", *common, "--nsd-tolerance", 5)
    assert float(rows(tmp_path / "out")[0]["nsd"]) == 1


@pytest.mark.parametrize(("empty", "hd95"), [("penalize", (0 + 50) / 2), ("ignore", 0)])
def test_empty_masks_are_counted(empty, hd95, guidino, tmp_path):
    nothing, something = np.zeros((30, 40)), square(0, 0, 8, (30, 40))
    gt = write_pngs(tmp_path / "gt", {"found": something, "missed": something, "none": nothing})
    pred = write_pngs(tmp_path / "pred", {"found": something, "missed": nothing, "none": nothing})
    guidino("evaluate", "-gt", gt, "-pred", pred, "-o", tmp_path, "--labels", "x=1", "--empty", empty, "-np", 1)
    summary = load_summary_json(str(tmp_path / "summary.json"))
    assert summary["empty_cases"] == {"1": {"prediction": 1, "reference": 0, "both": 1}}
    assert summary["mean"][1]["HD95"] == hd95
    assert summary["mean"][1]["Dice"] == 0.5
    assert "| x | 1 | 0 | 1 |" in (tmp_path / "report.md").read_text()


def delete_prediction(gt: Path, pred: Path) -> None:
    (pred / "b.png").unlink()


def add_prediction(gt: Path, pred: Path) -> None:
    write_pngs(pred, {"zz": square(0, 0)})


def empty_predictions(gt: Path, pred: Path) -> None:
    for file in pred.glob("*.png"):
        file.unlink()


def other_size(gt: Path, pred: Path) -> None:
    write_pngs(pred, {"b": square(0, 0, 8, (40, 51))})


def other_labels(gt: Path, pred: Path) -> None:
    write_pngs(pred, {"b": 255 * square(0, 0)})


def colours(gt: Path, pred: Path) -> None:
    write_pngs(pred, {"b": np.zeros((40, 50, 3))})


def corrupt(gt: Path, pred: Path) -> None:
    data = (pred / "b.png").read_bytes()
    (pred / "b.png").write_bytes(data[: len(data) // 2])


def corrupt_first_reference(gt: Path, pred: Path) -> None:
    (gt / "a.png").write_bytes(b"no image")


def no_dataset_json(gt: Path, pred: Path) -> None:
    (pred / "dataset.json").unlink()


def broken_dataset_json(gt: Path, pred: Path) -> None:
    (pred / "dataset.json").write_text("{")


def no_labels(gt: Path, pred: Path) -> None:
    (pred / "dataset.json").write_text('{"file_ending": ".png"}')


def other_dataset_json(gt: Path, pred: Path) -> None:
    (gt / "dataset.json").write_text('{"file_ending": ".png", "labels": {"background": 0, "thing": 1}}')


MUTATIONS = [
    (delete_prediction, r"1 case \(b\) of the references in .*gt missing in .*pred"),
    (add_prediction, r"1 case \(zz\) in .*pred, but not among the references"),
    (empty_predictions, r"pred holds no \*\.png file"),
    (other_size, r"pred/b\.png has size \(40, 51\), its reference has \(40, 50\)"),
    (other_labels, r"pred/b\.png holds 255; the labels are \[0, 1\]"),
    (colours, r"pred/b\.png has 3 channels"),
    (corrupt, r"pred/b\.png cannot be read"),
    (corrupt_first_reference, r"gt/a\.png: none of nnU-Net's readers"),
    (no_dataset_json, r"no dataset\.json in or above"),
    (broken_dataset_json, r"pred/dataset\.json cannot be read as JSON"),
    (no_labels, r"pred/dataset\.json has no key 'labels'"),
    (other_dataset_json, r"pred/dataset\.json and .*gt/dataset\.json have different labels"),
]


@pytest.mark.parametrize(("mutate", "message"), MUTATIONS, ids=[m.__name__ for m, _ in MUTATIONS])
def test_bad_input_is_one_error_and_writes_nothing(mutate, message, folders, guidino, tmp_path):
    mutate(*folders)
    with pytest.raises(AssertionError, match=message):
        guidino("evaluate", "-gt", folders[0], "-pred", folders[1], "-o", tmp_path / "out", "-np", 1)
    assert not (tmp_path / "out").exists()


def test_error_in_a_process_reaches_the_user(folders, guidino, tmp_path):
    corrupt(*folders)
    with pytest.raises(AssertionError, match=r"error: .*pred/b\.png cannot be read"):
        guidino("evaluate", "-gt", folders[0], "-pred", folders[1], "-o", tmp_path / "out", "-np", 2)


def test_missing_image(folders, guidino, tmp_path):
    images = write_pngs(tmp_path / "images", {f"{n}_0000": square(0, 0) for n in "abc"})
    with pytest.raises(AssertionError, match=r"no image CASE_0000\.png for 1 case \(d\)"):
        guidino("evaluate", "-gt", folders[0], "-pred", folders[1], "-o", tmp_path / "out", "-i", images)


@pytest.mark.parametrize("value", [np.nan, 0.5])
def test_values_that_are_no_labels(value, guidino, tmp_path):
    array = np.zeros((4, 5, 6), np.float32)
    write_nifti(tmp_path / "gt" / "a.nii.gz", array)
    array[2, 2, 2] = value
    write_nifti(tmp_path / "pred" / "a.nii.gz", array)
    folders = ["-gt", tmp_path / "gt", "-pred", tmp_path / "pred", "-o", tmp_path / "out"]
    with pytest.raises(AssertionError, match=rf"a\.nii\.gz holds {value:g}; the labels are \[0, 1\]"):
        guidino("evaluate", *folders, "--labels", "x=1")


def test_other_spacing(guidino, tmp_path):
    for name, spacing in (("gt", (1, 1, 1)), ("pred", (1, 1, 2))):
        write_nifti(tmp_path / name / "a.nii.gz", np.ones((4, 5, 6), np.uint8), spacing)
    with pytest.raises(AssertionError, match=r"a\.nii\.gz has spacing \(1\.0, 1\.0, 2\.0\), its reference has"):
        guidino("evaluate", "-gt", tmp_path / "gt", "-pred", tmp_path / "pred", "-o", tmp_path / "o", "--labels", "x=1")


@pytest.fixture
def model_folder(tmp_path, monkeypatch) -> Path:
    """Two validated folds of two cases each, laid out as nnU-Net does."""
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
            message = r"fold_2/validation does not exist: finish this fold with nnUNetv2_train … --val"
        case "case":
            (model_folder / "fold_1" / "validation" / "d.png").unlink()
            message = r"1 case \(d\) of the split of fold 1 missing in .*fold_1/validation"
        case "split":
            write_pngs(model_folder / "fold_7" / "validation", {"a": square(5, 5)})
            message = r"splits_final\.json has 2 folds, not a fold 7"
        case "preprocessed":
            monkeypatch.delenv("nnUNet_preprocessed")
            message = "nnUNet_preprocessed is not set"
        case "model":
            arguments = ["-m", model_folder.parent]
            message = r"Dataset001_X/dataset\.json cannot be read"
    with pytest.raises(AssertionError, match=message):
        guidino("evaluate", *arguments)
    assert not (model_folder / "evaluation").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("polyp=255", LabelSet({"polyp": 255})),
        ("whole=1+2,core=2,ignore=3", LabelSet({"whole": (1, 2), "core": 2}, 3)),
        ("background=0,a=1", LabelSet({"a": 1})),
    ],
)
def test_parse_labels(text, expected):
    assert parse_labels(text) == expected


@pytest.mark.parametrize("text", ["", "polyp", "polyp=x", "=1", "background=0", "a=1,,b=2", "a=-1"])
def test_parse_labels_refuses(text):
    with pytest.raises(GuidinoError, match="--labels"):
        parse_labels(text)


def test_list_of_one_value_is_a_label():
    assert label_set({"background": 0, "a": [1]}, "x") == LabelSet({"a": 1})


def test_agreement_map():
    reference = np.array([0, 1, 1, 0, 1, 3])
    prediction = np.array([0, 1, 0, 1, 2, 1])
    assert agreement_map(reference, prediction, ignore=3).tolist() == [0, 1, 2, 3, 4, 5]
