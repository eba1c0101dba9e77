"""Convert images without masks to the input of a model, and its predictions to masks and overlays."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pairs import convert, draw_image, draw_mask, make_pairs, names_in, save
from PIL import Image

Capture = pytest.CaptureFixture[str]
RGB = {"0": "R", "1": "G", "2": "B"}


def make_model(folder: Path, **description: object) -> Path:
    """Make the part of a model folder that the converter reads."""
    (folder / "fold_0").mkdir(parents=True)
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"")
    content = {"channel_names": RGB, "file_ending": ".png", "labels": {"background": 0, "polyp": 1}} | description
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def predict(images: Path, folder: Path, labels: dict[str, object], ending: str = ".png") -> Path:
    """Write predictions as nnU-Net does: an ellipse of label 1 and a corner of label 2."""
    for file in images.glob(f"*_0000{ending}"):
        with Image.open(file) as image:
            values = np.array(draw_mask(image.size, level=1))
        values[:4, :5] = 2 if len(labels) > 2 else 0
        save(Image.fromarray(values), folder / file.name.replace("_0000", ""))
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ending}))
    return folder


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_images_as_the_model_takes_them(ending: str, tmp_path: Path, capsys: Capture) -> None:
    source = tmp_path / "photos"
    save(draw_image((40, 30)), source / "a b.png")
    save(draw_image((50, 20), grey=True), source / "sub" / "größe.tif")
    (source / "notes.txt").write_text("")
    exif = Image.Exif()
    exif[0x0112] = 6
    draw_image((40, 30)).save(source / "turned.jpg", exif=exif)
    model = make_model(tmp_path / "model", file_ending=ending)
    assert convert("images", source, "-m", model, "-o", tmp_path / "new") == 0
    assert names_in(tmp_path / "new") == sorted(
        [f"{n}_0000{ending}" for n in ("a b", "größe", "turned")] + ["mapping.csv"]
    )
    sizes = {}
    for file in (tmp_path / "new").glob(f"*{ending}"):
        with Image.open(file) as image:
            assert image.mode == "RGB"
            sizes[file.name[0]] = image.size
    assert sizes == {"a": (40, 30), "g": (50, 20), "t": (30, 40)}
    with Image.open(tmp_path / "new" / f"a b_0000{ending}") as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(draw_image((40, 30))))
    out, error = capsys.readouterr()
    assert f"Next: nnUNetv2_predict_from_modelfolder -i {tmp_path / 'new'}" in out
    assert f"-m {model} -f 0" in out
    assert "notes.txt" in error


@pytest.mark.parametrize(
    ("trained", "advised"), [(["0", "3", "all"], "0 3"), (["all"], "all"), (["0", "unfinished"], "0"), ([], "0")]
)
def test_the_advice_names_folds_that_predict_together(
    trained: list[str], advised: str, tmp_path: Path, capsys: Capture
) -> None:
    save(draw_image((40, 30)), tmp_path / "photos" / "a.png")
    model = make_model(tmp_path / "model")
    (model / "fold_0" / "checkpoint_final.pth").unlink()
    for fold in trained:
        (model / f"fold_{fold}").mkdir(exist_ok=True)
        (model / f"fold_{fold}" / ("checkpoint_final.pth" if fold != "unfinished" else "checkpoint_best.pth")).touch()
    assert convert("images", tmp_path / "photos", "-m", model, "-o", tmp_path / "new") == 0
    assert f"-m {model} -f {advised}\n" in capsys.readouterr().out


@pytest.mark.parametrize("by_words_only", [False, True])  # as 0.1.0 wrote it
def test_there_and_back(by_words_only: bool, tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    """A model of resized images gets resized images, and its masks get the original size."""
    assert convert("kvasir-seg", make_pairs(tmp_path / "set", list("abc")), "--resize", 16, 20) == 0
    description = json.loads((nnunet / "Dataset501_KvasirSEG" / "dataset.json").read_text())
    if by_words_only:
        del description["resized_to"]
    model = make_model(tmp_path / "model", **description)
    save(draw_image((100, 80)), tmp_path / "=x.png")
    assert convert("images", tmp_path / "=x.png", "-m", model, "-o", tmp_path / "new") == 0
    assert "resized to 16 × 20 (height × width), as the training images were" in capsys.readouterr().err
    with Image.open(tmp_path / "new" / "=x_0000.png") as image:
        assert image.size == (20, 16)
    predictions = predict(tmp_path / "new", tmp_path / "predicted", {"background": 0, "polyp": 1})
    assert convert("predictions", predictions, "-i", tmp_path / "new", "-o", tmp_path / "masks") == 0
    with Image.open(tmp_path / "masks" / "masks" / "=x.png") as mask:
        assert mask.size == (100, 80)
        assert np.unique(np.asarray(mask)).tolist() == [0, 255]
    with Image.open(tmp_path / "masks" / "overlays" / "=x.png") as overlay:
        assert (np.asarray(overlay) == (255, 255, 0)).all(axis=-1).any(), "the outline is yellow"


def test_several_labels_and_regions(tmp_path: Path) -> None:
    save(draw_image((40, 30)), tmp_path / "photos" / "a.png")
    assert convert("images", tmp_path / "photos", "-m", make_model(tmp_path / "model"), "-o", tmp_path / "new") == 0
    labels = {"background": 0, "whole thing": [1, 2], "part": 2, "ignore": 3}
    predictions = predict(tmp_path / "new", tmp_path / "predicted", labels)
    assert convert("predictions", predictions, "-i", tmp_path / "new", "-o", tmp_path / "out") == 0
    assert names_in(tmp_path / "out" / "masks") == ["a_part.png", "a_whole_thing.png"]
    areas = {}
    for name in ("part", "whole_thing"):
        with Image.open(tmp_path / "out" / "masks" / f"a_{name}.png") as mask:
            areas[name] = int((np.asarray(mask) == 255).sum())
    assert areas == {"part": 20, "whole_thing": 20 + int((np.asarray(draw_mask((40, 30))) > 0).sum())}


MODELS = {
    "volumes": ({"file_ending": ".nii.gz"}, "takes .nii.gz files"),
    "two channels": ({"channel_names": {"0": "R", "1": "G"}}, "has the channels R, G"),
    "no colours": ({"channel_names": {"0": "T1", "1": "T2", "2": "PD"}}, "has the channels T1, T2, PD"),
    "no channels": ({"channel_names": None}, "channel_names is None; expected an object of channels"),
    "no ending": ({"file_ending": 5}, 'file_ending is 5; expected a text such as ".png"'),
    "bad size": ({"resized_to": [0, 5]}, "resized_to is [0, 5]; expected [height, width]"),
}


@pytest.mark.parametrize("what", MODELS)
def test_models_that_take_no_pictures(what: str, tmp_path: Path, capsys: Capture) -> None:
    description, message = MODELS[what]
    save(draw_image(), tmp_path / "photos" / "a.png")
    model = make_model(tmp_path / "model", **description)
    assert convert("images", tmp_path / "photos", "-m", model, "-o", tmp_path / "new") == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "new").exists()


def test_all_that_is_wrong_with_images(tmp_path: Path, capsys: Capture) -> None:
    source = tmp_path / "photos"
    save(draw_image(), source / "colour.png")
    (source / "empty.png").write_bytes(b"")
    model = make_model(tmp_path / "model", channel_names={"0": "grey"})
    assert convert("images", source, "-m", model, "-o", tmp_path / "new") == 1
    error = capsys.readouterr().err
    assert "colour.png: is in colour, but the model was trained on grey images" in error
    assert "empty.png: is empty\nNothing was written." in error
    assert names_in(tmp_path) == ["model", "photos"]
    save(draw_image(), source / "sub" / "empty.jpg")
    assert convert("images", source, "-m", model, "-o", tmp_path / "new") == 1
    assert "empty.jpg: would be the case empty, like" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["model", "photos"])
def test_nothing_there(missing: str, tmp_path: Path, capsys: Capture) -> None:
    make_model(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    arguments = {"model": tmp_path / "model", "photos": tmp_path / "photos"} | {missing: tmp_path / "nothing"}
    assert convert("images", arguments["photos"], "-m", arguments["model"], "-o", tmp_path / "new") == 1
    assert str(tmp_path / "nothing") in capsys.readouterr().err
    assert convert("images", tmp_path / "photos", "-m", tmp_path / "model", "-o", tmp_path / "new") == 1
    assert "no images found" in capsys.readouterr().err


def test_a_folder_that_exists_is_kept(tmp_path: Path, capsys: Capture) -> None:
    save(draw_image(), tmp_path / "photos" / "a.png")
    arguments = ("images", tmp_path / "photos", "-m", make_model(tmp_path / "model"), "-o", tmp_path / "photos")
    assert convert(*arguments) == 1
    assert "exists already" in capsys.readouterr().err


def test_images_in_a_zip_by_workers(tmp_path: Path) -> None:
    save(draw_image(), tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in "abc":
            archive.write(tmp_path / "a.png", f"x/{name}.png")
    assert (
        convert("images", tmp_path / "photos.zip", "-m", make_model(tmp_path / "model"), "-o", tmp_path / "n", "-np", 2)
        == 0
    )
    with (tmp_path / "n" / "mapping.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["case"], row["original_image"]) for row in rows] == [(n, f"photos/x/{n}.png") for n in "abc"]


PREDICTIONS = {
    "no labels": (lambda p, _: (p / "dataset.json").write_text('{"file_ending": ".png"}'), "has no labels; expected"),
    "volumes": (
        lambda p, _: (p / "dataset.json").write_text('{"file_ending": ".nii.gz", "labels": {"polyp": 1}}'),
        "holds .nii.gz files",
    ),
    "torn": (lambda p, _: (p / "dataset.json").write_text('{"file'), "is no JSON file, or was cut short"),
    "cut short": (
        lambda p, _: (p / "a.png").write_bytes((p / "a.png").read_bytes()[:60]),
        "a.png: image file",
    ),
    "no image": (lambda _, i: (i / "a_0000.png").unlink(), "a_0000.png: No such file"),
    "other size": (lambda p, _: save(draw_mask((9, 9)), p / "a.png"), "has (9, 9) pixels, but its image (40, 30)"),
    "none": (lambda p, _: (p / "a.png").unlink(), "holds no predictions *.png"),
    "other table": (
        lambda _, i: (i / "mapping.csv").write_text("original_height\nx\n"),
        "mapping.csv cannot be read as",
    ),
}


@pytest.mark.parametrize("what", PREDICTIONS)
def test_bad_predictions(what: str, tmp_path: Path, capsys: Capture) -> None:
    save(draw_image(), tmp_path / "photos" / "a.png")
    assert convert("images", tmp_path / "photos", "-m", make_model(tmp_path / "model"), "-o", tmp_path / "new") == 0
    predictions = predict(tmp_path / "new", tmp_path / "predicted", {"background": 0, "polyp": 1})
    spoil, message = PREDICTIONS[what]
    spoil(predictions, tmp_path / "new")
    assert convert("predictions", predictions, "-i", tmp_path / "new", "-o", tmp_path / "out") == 1
    assert message in capsys.readouterr().err
    assert names_in(tmp_path) == ["model", "new", "photos", "predicted"]
