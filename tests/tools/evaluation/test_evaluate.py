"""`guidino evaluate` on folders and model folders."""

import json
import re
import warnings

import numpy as np
import pytest
from evaluation_data import rows, square, write_nifti, write_pngs
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder, load_summary_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_guidino.tools.evaluation.case_pictures import agreement_map


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


def test_agreement_map():
    reference = np.array([0, 1, 1, 0, 1, 3])
    prediction = np.array([0, 1, 0, 1, 2, 1])
    assert agreement_map(reference, prediction, ignore=3).tolist() == [0, 1, 2, 3, 4, 5]


def test_images_with_values_that_are_no_numbers_are_drawn(guidino, tmp_path):
    volume = np.zeros((4, 20, 30), np.uint8)
    volume[1:3, 5:12, 6:20] = 1
    image = np.random.default_rng(0).normal(size=volume.shape).astype(np.float32)
    image[0, :3] = np.nan
    for name, array in (("gt/a", volume), ("pred/a", volume), ("images/a_0000", image)):
        write_nifti(tmp_path / f"{name}.nii", array)
    folders = ["-gt", tmp_path / "gt", "-pred", tmp_path / "pred", "-i", tmp_path / "images", "-o", tmp_path / "out"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guidino("evaluate", *folders, "--labels", "x=1", "-np", 1)
