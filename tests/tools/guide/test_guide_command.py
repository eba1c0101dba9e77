import csv
import json

import numpy as np
import pytest
from nnunet_workspace import DATASET
from PIL import Image

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.guide.guide_export import guide
from nnunetv2_guidino.tools.guide.guide_scores import guide_scores


@pytest.fixture
def folders(tmp_path):
    """Three images of unequal size and their references; the last reference is empty."""
    rng = np.random.default_rng(0)
    for name in ("images", "references"):
        (tmp_path / name).mkdir()
    for name, size in (("a", (40, 60)), ("b", (32, 48)), ("c", (70, 50))):
        Image.fromarray(rng.integers(0, 255, (*size, 3)).astype(np.uint8)).save(
            tmp_path / "images" / f"{name}_0000.png"
        )
        truth = np.zeros(size, np.uint8)
        truth[5:20, 10:30] = name != "c"
        Image.fromarray(truth).save(tmp_path / "references" / f"{name}.png")
    return tmp_path


def test_guides_panels_sheet_and_scores(folders, model_folder, guidino):
    options = ("-m", model_folder(), "-i", folders / "images", "-o", folders / "out", "-device", "cpu")
    printed = guidino("guide", *options, "-gt", folders / "references")
    files = {str(file.relative_to(folders / "out")) for file in (folders / "out").rglob("*.*")}
    cases = {f"{name}.png" for name in "abc"}
    per_case = {f"{folder}/{file}" for folder in ("guides", "panels") for file in cases}
    assert files == per_case | {"contact_sheet_1.png", "guide.csv"}
    with (folders / "out" / "guide.csv").open() as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    for name, row in rows.items():
        shown = np.asarray(Image.open(folders / "out" / "guides" / f"{name}.png")) / 255
        truth = np.asarray(Image.open(folders / "references" / f"{name}.png")) > 0
        assert shown.shape == truth.shape
        scores = guide_scores(shown.ravel(), truth.ravel())
        for metric, value in scores.items():
            assert float(row[metric] or "nan") == pytest.approx(value, abs=0.02, nan_ok=True)
    assert rows["c"]["auc"] == ""
    assert "| AUC |" in printed
    assert "2 of 3 |" in printed


def test_without_references_there_is_no_report(folders, model_folder, guidino):
    options = ("-m", model_folder(), "-i", folders / "images", "-o", folders / "out", "-device", "cpu", "--disable_tta")
    assert "Dice" not in guidino("guide", *options)
    assert not (folders / "out" / "guide.csv").exists()


@pytest.mark.parametrize(
    ("values", "truth", "dice", "auc"),
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 1, 1),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 0, 0),
        ([0.3, 0.2, 0.1, 0.0], [1, 1, 0, 0], 0, 1),  # right, but all below the threshold
        ([0.9, 0.4, 0.6, 0.1], [1, 1, 0, 0], 0.5, 0.75),
        ([0.7, 0.7, 0.7, 0.7], [1, 1, 0, 0], 2 / 3, 0.5),
        ([0.9, 0.1], [0, 0], 0, np.nan),
        ([0.1, 0.1], [0, 0], np.nan, np.nan),
        ([0.9, 0.9], [1, 1], 1, np.nan),
    ],
)
def test_scores(values, truth, dice, auc):
    scores = guide_scores(np.array(values), np.array(truth, bool))
    assert scores == pytest.approx({"dice": dice, "auc": auc}, nan_ok=True)


def remove_reference(folders):
    (folders / "references" / "b.png").unlink()


def crop_reference(folders):
    Image.new("L", (10, 10)).save(folders / "references" / "c.png")


def strange_label(folders):
    Image.new("L", (50, 70), 255).save(folders / "references" / "c.png")


def damage_image(folders):
    (folders / "images" / "c_0000.png").write_bytes(b"no image")


def grey_image(folders):
    Image.new("L", (50, 70), 255).save(folders / "images" / "c_0000.png")


@pytest.mark.parametrize(
    ("mutation", "message"),
    [
        (remove_reference, r"references has no reference CASE.png for 1 case \(b\)"),
        (crop_reference, r"c.png has size .*10, 10\), its image has .*70, 50"),
        (strange_label, "c.png holds 255"),
        (damage_image, "c_0000.png cannot be read: it is none of PNG, BMP, TIFF, JPEG"),
        (grey_image, "c_0000.png has 1 channels, the model was trained on 3"),
    ],
)
def test_one_bad_file_is_named_and_nothing_is_written(mutation, message, folders, model_folder, guidino):
    mutation(folders)
    options = ("-m", model_folder(), "-i", folders / "images", "-o", folders / "out", "-device", "cpu")
    with pytest.raises(AssertionError, match=message):
        guidino("guide", *options, "-gt", folders / "references")
    assert list((folders / "out").rglob("*")) == []


def test_a_step_of_more_than_a_patch_is_refused(folders):
    """On the command line too: tests/commands/test_options.py."""
    with pytest.raises(GuidinoError, match="-step_size 1.5: expected more than 0 and at most 1"):
        guide(folders, folders, folders, device="cpu", step_size=1.5)


def test_no_gpu_says_what_to_do(folders, guidino, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(AssertionError, match="-device cuda: there is none here. Say -device cpu"):
        guidino("guide", "-m", folders, "-i", folders, "-o", folders)


def test_the_ignore_label_is_left_out(folders, model_folder, guidino):
    model = model_folder()
    dataset = json.loads((model / "dataset.json").read_text())
    (model / "dataset.json").write_text(json.dumps(dataset | {"labels": {"background": 0, "polyp": 1, "ignore": 2}}))
    truth = np.full((70, 50), 2, np.uint8)
    truth[0] = 0
    Image.fromarray(truth).save(folders / "references" / "c.png")
    options = ("-m", model, "-i", folders / "images", "-o", folders / "out", "-device", "cpu")
    assert "2 of 3 |" in guidino("guide", *options, "-gt", folders / "references")


@pytest.mark.slow
def test_trained_models(workspace, trained_models, guidino, tmp_path):
    raw = workspace.raw / DATASET
    options = ("-i", raw / "imagesTr", "-gt", raw / "labelsTr", "-o", tmp_path, "-device", "cpu")
    guidino("guide", "-m", trained_models["guided"], *options)
    assert len(list(tmp_path.glob("panels/*.png"))) == len(list((raw / "imagesTr").iterdir()))
    with pytest.raises(AssertionError, match="which has no guide"):
        guidino("guide", "-m", trained_models["plain"], *options)
