"""`guidino guide` on volumes: labels, regions and the later stage of a cascade."""

import csv

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from PIL import Image
from volumes import LABELS, PATCH, REGIONS, save, write_volumes

from nnunetv2_guidino.tools.guide.predictor import GuidePredictor

CHECKPOINT = "checkpoint_final.pth"


@pytest.fixture
def folders(tmp_path):
    return write_volumes(tmp_path)


@pytest.mark.parametrize("dataset", [LABELS, REGIONS], ids=["labels", "regions"])
def test_guides_lie_on_the_image_s_grid(dataset, folders, model_folder, guidino):
    model = model_folder(**PATCH, **dataset, guide={"guides": "classes", "slice_stride": 2})
    options = ("-m", model, "-i", folders / "images", "-o", folders / "out", "-device", "cpu", "--disable_tta")
    assert "2 of 2 |" in guidino("guide", *options, "-gt", folders / "references")
    image = sitk.ReadImage(folders / "images" / "a_0000.nii.gz")
    guide = sitk.ReadImage(folders / "out" / "guides" / "a.nii.gz")
    for about in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(guide, about)() == pytest.approx(getattr(image, about)(), abs=1e-5), about
    values = sitk.GetArrayFromImage(guide)
    assert 0 <= values.min() < values.max() <= 1
    with (folders / "out" / "guide.csv").open() as file:
        assert all(0 <= float(row["auc"]) <= 1 for row in csv.DictReader(file))
    width, height = Image.open(folders / "out" / "panels" / "a.png").size
    assert width == 1260  # image, truth, guide and prediction
    assert 500 < height < 800  # three planes, two of them flat


@pytest.mark.parametrize("dataset", [LABELS, REGIONS], ids=["labels", "regions"])
@pytest.mark.parametrize("previous_stage", [None, "3d_lowres"], ids=["one stage", "cascade"])
def test_the_segmentation_is_nnunet_s(previous_stage, dataset, folders, model_folder):
    model = model_folder(**PATCH, **dataset, previous_stage=previous_stage)
    files = [folders / "images" / f"a_{channel:04d}.nii.gz" for channel in range(3)]
    folder = folders / "previous" if previous_stage else None
    stock = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(model), (0,), CHECKPOINT)
    expected = stock.predict_from_files_sequential(
        [[str(file) for file in files]], None, folder_with_segs_from_prev_stage=folder and str(folder)
    )[0]
    predictor = GuidePredictor(model, None, CHECKPOINT, "cpu", use_mirroring=False)
    guided = predictor.predict(files, folder and folder / "a.nii.gz")
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(guided.segmentation, expected)
    if folder:
        sitk.WriteImage(sitk.ReadImage(folder / "a.nii.gz") * 0, folder / "b.nii.gz")
        other = predictor.predict(files, folder / "b.nii.gz")
        assert (other.segmentation != guided.segmentation).any()
        np.testing.assert_array_equal(other.guide, guided.guide)  # of the image alone


def test_a_prediction_of_another_size_is_named(folders, model_folder, guidino):
    save(np.zeros((2, 3, 4), np.uint8), folders / "previous" / "b.nii.gz")
    model = model_folder(**PATCH, **LABELS, previous_stage="3d_lowres")
    options = ["-m", model, "-i", folders / "images", "-o", folders / "out", "-device", "cpu", "--disable_tta"]
    with pytest.raises(AssertionError, match=r"b_0000.nii.gz with .*previous/b.nii.gz cannot be preprocessed: Shape"):
        guidino("guide", *options, "-prev_stage_predictions", folders / "previous")


@pytest.mark.parametrize(
    ("previous_stage", "predictions", "message"),
    [
        ("3d_lowres", None, "later stage: predict the images with nnUNetv2_predict -c 3d_lowres and say with -prev_st"),
        ("3d_lowres", "gone", "gone is not a folder"),
        ("3d_lowres", "previous", r"previous has no prediction CASE.nii.gz for 1 case \(b\)"),
        (None, "previous", "-prev_stage_predictions: .*model has no previous stage"),
    ],
)
def test_wrong_stages_are_refused(previous_stage, predictions, message, folders, model_folder, guidino):
    (folders / "previous" / "b.nii.gz").unlink()
    model = model_folder(**PATCH, **LABELS, previous_stage=previous_stage)
    options = ["-m", model, "-i", folders / "images", "-o", folders / "out", "-device", "cpu"]
    if predictions:
        options += ["-prev_stage_predictions", folders / predictions]
    with pytest.raises(AssertionError, match=message):
        guidino("guide", *options)
    assert not (folders / "out").exists()
