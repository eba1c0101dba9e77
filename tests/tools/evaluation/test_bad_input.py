"""`guidino evaluate` on files that are missing or damaged, or that hold other content."""

from pathlib import Path

import numpy as np
import pytest
from evaluation_data import square, write_nifti, write_pngs


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
    (corrupt_first_reference, r"gt/a\.png cannot be read: it is none of PNG, BMP, TIFF, JPEG"),
    (no_dataset_json, r"no dataset\.json in or above"),
    (broken_dataset_json, r"pred/dataset\.json is no JSON file"),
    (no_labels, r"pred/dataset\.json: labels must be name: value or name: \[values\], found None"),
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


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("which", ["gt/a", "pred/a", "images/a_0000"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_cut_volumes_are_not_scored(ending, which, share, guidino, tmp_path):
    """ITK fills the missing end of a .nii.gz with zeros."""
    for name, number in (("gt/a", 2), ("pred/a", 2), ("images/a_0000", 200)):
        noise = np.random.default_rng(0).integers(0, number, (9, 30, 40)).astype(np.uint8)
        write_nifti(tmp_path / f"{name}{ending}", noise)
    file = tmp_path / f"{which}{ending}"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    folders = ["-gt", tmp_path / "gt", "-pred", tmp_path / "pred", "-i", tmp_path / "images", "-o", tmp_path / "out"]
    with pytest.raises(AssertionError, match=rf"{which}\{ending} cannot be read: it is cut short"):
        guidino("evaluate", *folders, "--labels", "x=1", "-np", 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spacing", [np.nan, np.inf])  # nibabel replaces 0 by 1
def test_a_spacing_that_is_none(spacing, guidino, tmp_path):
    """Without distances between their points, all surfaces would agree."""
    for name, column in (("gt", 5), ("pred", 9)):
        volume = np.zeros((4, 20, 30), np.uint8)
        volume[1:3, 5:12, column : column + 9] = 1
        file = write_nifti(tmp_path / name / "a.nii", volume)
        header = bytearray(file.read_bytes())
        header[80:92] = np.full(3, spacing, np.float32).tobytes()  # pixdim
        file.write_bytes(header)
    folders = ["-gt", tmp_path / "gt", "-pred", tmp_path / "pred", "-o", tmp_path / "out"]
    with pytest.raises(AssertionError, match=r"a\.nii (has spacing|cannot be read)"):
        guidino("evaluate", *folders, "--labels", "x=1", "-np", 1)
