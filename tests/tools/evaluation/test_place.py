"""Prediction, reference and image must lie in the same place, for each of nnU-Net's readers that reads places."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from evaluation_data import rows, write_pngs

ARRAY = np.zeros((6, 20, 30), np.uint8)
ARRAY[2:4, 3:9, 5:20] = 1
READERS = [
    ("SimpleITKIO", ".nii.gz"),
    ("SimpleITKIO", ".mha"),
    ("SimpleITKIO", ".nrrd"),
    ("NibabelIO", ".nii.gz"),
    ("NibabelIO", ".nii"),
]
TURNING = [("SimpleITKIOWithReorient", ".nii.gz"), ("NibabelIOWithReorient", ".nii.gz")]


def image(array=ARRAY, spacing=(0.7, 0.7, 3.0), origin=(-12.5, 40.25, 7.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)):
    result = sitk.GetImageFromArray(array)
    result.SetSpacing(spacing)
    result.SetOrigin(origin)
    result.SetDirection(direction)
    return result


def save(result: sitk.Image, file: Path) -> None:
    """Write with SimpleITK, whose files are equal for both readers except plain .nii."""
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(result, str(file))


def evaluate(guidino, folder: Path, reader: str, ending: str, prediction: sitk.Image, **more: sitk.Image) -> float:
    """Return the Dice of a prediction for the reference above; `more` may be image=…."""
    save(image(), folder / "gt" / f"a{ending}")
    save(prediction, folder / "pred" / f"a{ending}")
    arguments = ["-gt", folder / "gt", "-pred", folder / "pred", "-o", folder / "out", "-np", 1]
    if more:
        save(more["image"], folder / "images" / f"a_0000{ending}")
        arguments += ["-i", folder / "images"]
    dataset = {"labels": {"background": 0, "x": 1}, "file_ending": ending, "overwrite_image_reader_writer": reader}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    guidino("evaluate", *arguments)
    return float(rows(folder / "out")[0]["dice"])


FLIP = {"array": ARRAY[:, :, ::-1], "direction": (-1, 0, 0, 0, 1, 0, 0, 0, 1), "origin": (-12.5 + 29 * 0.7, 40.25, 7.0)}
TILT = (1, 0, 0, 0, float(np.cos(0.1)), -float(np.sin(0.1)), 0, float(np.sin(0.1)), float(np.cos(0.1)))
ELSEWHERE = {
    "flipped, the same segmentation": (FLIP, r"direction \(.*\), its reference has .* \(flipped along x\)"),
    "flipped header": ({"direction": FLIP["direction"]}, r"flipped along x"),
    "tilted": ({"direction": TILT}, r"direction \("),
    "displaced": ({"origin": (-12.5, 41.25, 7.0)}, r"origin \(.*\), its reference has \("),
    "a pixel aside": ({"origin": (-11.8, 40.25, 7.0)}, r"origin \("),
    "lost": ({"origin": (0, 0, 0)}, r"origin \("),
    "spacing": ({"spacing": (0.7, 0.7, 2.5)}, r"spacing \(2\.5, .*\), its reference has \(3\.0"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize(("reader", "ending"), READERS)
def test_a_prediction_elsewhere_is_refused(reader, ending, name, guidino, tmp_path):
    changes, message = ELSEWHERE[name]
    with pytest.raises(AssertionError, match=rf"pred/a\{ending} has .*{message}.*same place.*CopyInformation"):
        evaluate(guidino, tmp_path, reader, ending, image(**changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["displaced", "flipped header", "spacing"])
@pytest.mark.parametrize(("reader", "ending"), [*READERS[::2], *TURNING])
def test_an_image_elsewhere_is_refused(reader, ending, name, guidino, tmp_path):
    changes, _ = ELSEWHERE[name]
    with pytest.raises(AssertionError, match=rf"images/a_0000\{ending} has .*its reference has"):
        evaluate(guidino, tmp_path, reader, ending, image(), image=image(**changes))


@pytest.mark.parametrize(("reader", "ending"), TURNING)
def test_readers_that_turn_see_the_same_segmentation(reader, ending, guidino, tmp_path):
    """To these readers, a flipped file is the same segmentation and a displaced file is not."""
    assert evaluate(guidino, tmp_path, reader, ending, image(**FLIP), image=image(**FLIP)) == 1
    with pytest.raises(AssertionError, match=r"pred/a\.nii\.gz has origin"):
        evaluate(guidino, tmp_path, reader, ending, image(origin=(-12.5, 41.25, 7.0)))


NEARLY = {
    "32 bits": {"origin": tuple(float(np.float32(v)) for v in (-12.500001, 40.250002, 7.0))},
    "four digits": {"spacing": (0.7001, 0.6999, 3.0)},
    "a hundredth of a pixel": {"origin": (-12.507, 40.25, 7.0)},
}


@pytest.mark.parametrize("name", NEARLY)
@pytest.mark.parametrize(("reader", "ending"), READERS)
def test_lost_digits_are_borne(reader, ending, name, guidino, tmp_path):
    assert evaluate(guidino, tmp_path, reader, ending, image(**NEARLY[name]), image=image()) == 1


def test_slices_and_planes(guidino, tmp_path):
    """One slice fits as a volume and as a plane; its depth does not matter."""
    plane = sitk.GetImageFromArray(ARRAY[2])
    save(plane, tmp_path / "gt" / "a.nii.gz")
    slab = sitk.GetImageFromArray(ARRAY[2:3])
    slab.SetSpacing((1, 1, 5))
    save(slab, tmp_path / "pred" / "a.nii.gz")
    arguments = ["-gt", tmp_path / "gt", "-pred", tmp_path / "pred", "-o", tmp_path / "out", "--labels", "x=1"]
    guidino("evaluate", *arguments, "-np", 1)
    assert float(rows(tmp_path / "out")[0]["dice"]) == 1
    slab.SetOrigin((0, 3, 0))
    save(slab, tmp_path / "pred" / "a.nii.gz")
    with pytest.raises(AssertionError, match=r"has origin \(.*3.*\), its reference has"):
        guidino("evaluate", *arguments, "-np", 1)


def test_pictures_have_no_place(folders, guidino, tmp_path):
    images = write_pngs(tmp_path / "images", {f"{n}_0000": np.full((40, 50, 3), 99) for n in "abcd"})
    guidino("evaluate", "-gt", folders[0], "-pred", folders[1], "-o", tmp_path / "out", "-i", images, "-np", 1)
