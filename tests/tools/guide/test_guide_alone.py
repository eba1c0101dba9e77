"""The guides of a fold's validation cases by themselves, beside what `guidino guide` says of the same images."""

import json
import shutil

import numpy as np
import pytest
from nnunet_workspace import DATASET
from planned import DATASET as PLANNED
from volumes import LABELS, PATCH, REGIONS, SHAPE, write_volumes

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.folders import folder_of
from nnunetv2_guidino.tools.guide.guide_alone import ANY_CLASS, guides_alone
from nnunetv2_guidino.tools.guide.guide_export import guide
from nnunetv2_guidino.tools.guide.guide_scores import HALF
from nnunetv2_guidino.tools.guide.predictor import GuidePredictor


@pytest.fixture
def folders(tmp_path):
    return write_volumes(tmp_path)


@pytest.fixture
def trained(folders, model_folder, monkeypatch):
    """Model folder and raw data, as a finished training leaves them; the predictions are shifted."""

    def build(**settings):
        model = model_folder(**PATCH, **settings)
        preprocessed, raw = folder_of("nnUNet_preprocessed") / PLANNED, folders / "raw"
        shutil.copytree(folders / "references", preprocessed / "gt_segmentations", dirs_exist_ok=True)
        (preprocessed / "splits_final.json").write_text(json.dumps([{"train": [], "val": ["a", "b"]}]))
        shutil.copytree(folders / "previous", model / "fold_0" / "validation")
        shutil.copytree(folders / "images", raw / "imagesTr")
        shutil.copytree(folders / "references", raw / "labelsTr")
        shutil.copy(model / "dataset.json", raw)
        return model, raw

    return build


def test_one_guide_for_several_classes_is_compared_with_any(trained, folders):
    model, raw = trained(**LABELS)
    found = list(guides_alone(model, "0", "cpu", raw))
    shown = guide(model, folders / "images", folders / "out", folders / "references", device="cpu").table
    expected = shown.set_index("case")["dice"]
    for case in found:
        (of_any,) = case.classes
        assert of_any.name == ANY_CLASS
        assert of_any.values.dice()[HALF] == expected[case.case]
        assert of_any.values.pixels.sum() == np.prod(SHAPE)
        assert of_any.segmentation_dice == pytest.approx(2 / 3)  # shifted by 5 of 15
        assert case.picture.shape == SHAPE
        assert case.picture.dtype == np.uint8


@pytest.mark.parametrize(
    ("dataset", "values"),
    [(LABELS, {"a": [1], "b": [2]}), (REGIONS, {"whole": [1, 2], "inside": [2]})],
    ids=["labels", "regions"],
)
def test_each_class_s_guide_is_compared_with_its_class(dataset, values, trained, folders):
    model, raw = trained(**dataset, guide={"guides": "classes", "slice_stride": 2})
    predictor = GuidePredictor(model, ["0"], "checkpoint_final.pth", "cpu", each_class=True)
    files = sorted((folders / "images").glob("a_*"))
    guides = predictor.predict(files).guides
    assert guides.shape == (2, *SHAPE)
    assert abs(guides[0] - guides[1]).max() > 0.01
    reference, _ = predictor.reader().read_seg(str(folders / "references" / "a.nii.gz"))
    case = next(guides_alone(model, "0", "cpu", raw))
    assert [of_class.name for of_class in case.classes] == list(values)
    for of_class, one, of_reference in zip(case.classes, guides, values.values(), strict=True):
        mask, truth = one > 0.5, np.isin(reference[0], of_reference)
        assert of_class.values.dice()[HALF] == pytest.approx(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    gates = GuidePredictor(model, ["0"], "checkpoint_final.pth", "cpu").predict(files).guide
    # the maximum of means is at most the mean of maxima; nnU-Net adds up in half precision
    assert (guides.max(0) <= gates + 0.02).all()


def test_what_is_not_there_is_named(trained):
    model, raw = trained(**LABELS)
    for file in (raw / "imagesTr").glob("b_*"):
        file.unlink()
    with pytest.raises(GuidinoError, match="raw has no image of b"):
        list(guides_alone(model, "0", "cpu", raw))
    shutil.rmtree(raw)
    with pytest.raises(GuidinoError, match="raw has no dataset.json: the raw images"):
        list(guides_alone(model, "0", "cpu", raw))


@pytest.mark.slow
def test_of_a_training_it_is_what_the_command_says(workspace, trained_models, guidino, tmp_path, monkeypatch):
    for name, value in workspace.environment.items():
        monkeypatch.setenv(name, value)
    raw, model = workspace.raw / DATASET, trained_models["guided"]
    options = ("-i", raw / "imagesTr", "-gt", raw / "labelsTr", "-o", tmp_path, "-device", "cpu", "-f", "0")
    guidino("guide", "-m", model, *options)
    lines = [line.split(",") for line in (tmp_path / "guide.csv").read_text().splitlines()[1:]]
    expected = {case: float(dice) for case, dice, _ in lines}
    found = list(guides_alone(model, "0", "cpu", raw))
    assert len(found) == 4
    for case in found:
        assert [of_class.name for of_class in case.classes] == ["lesion"]
        assert case.classes[0].values.dice()[HALF] == expected[case.case]
    nnunet = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
    mean = np.mean([case.classes[0].segmentation_dice for case in found])
    assert mean == pytest.approx(nnunet["foreground_mean"]["Dice"])
