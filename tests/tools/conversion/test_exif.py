"""Test EXIF orientations of both image and mask, and of one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pairs import convert, draw_image, draw_mask
from PIL import Image, ImageOps

Capture = pytest.CaptureFixture[str]


def save_turned(image: Image.Image, file: Path, orientation: int | None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(file, exif=exif)


def read(nnunet: Path, case: str = "a") -> tuple[np.ndarray, np.ndarray]:
    target = nnunet / "Dataset500_set"
    with Image.open(target / f"imagesTr/{case}_0000.png") as image, Image.open(target / f"labelsTr/{case}.png") as mask:
        return np.asarray(image), np.asarray(mask)


def upright(image: Image.Image, orientation: int) -> np.ndarray:
    image = image.copy()
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_mask_drawn_on_the_stored_pixels(orientation: int, ending: str, tmp_path: Path, nnunet: Path) -> None:
    """If the turn swaps the sides, only one reading fits; otherwise the converter needs --exif."""
    image, mask = draw_image(), draw_mask()
    save_turned(image, tmp_path / f"set/images/a{ending}", orientation)
    save_turned(mask, tmp_path / "set/masks/a.png", None)
    assert convert("folder", tmp_path / "set") == (0 if orientation >= 5 else 1)
    if orientation < 5:
        assert not nnunet.exists()
        assert convert("folder", tmp_path / "set", "--exif", "stored") == 0
    written, labels = read(nnunet)
    np.testing.assert_array_equal(written, np.asarray(image))
    np.testing.assert_array_equal(labels, np.asarray(mask) // 255)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_mask_drawn_on_the_upright_image(orientation: int, tmp_path: Path, nnunet: Path) -> None:
    image, mask = draw_image(), Image.fromarray(upright(draw_mask(), orientation))
    save_turned(image, tmp_path / "set/images/a.png", orientation)
    save_turned(mask, tmp_path / "set/masks/a.png", None)
    assert convert("folder", tmp_path / "set", "--exif", "upright") == 0
    written, labels = read(nnunet)
    np.testing.assert_array_equal(written, upright(image, orientation))
    np.testing.assert_array_equal(labels, np.asarray(mask) // 255)


def test_both_of_one_orientation_become_upright(tmp_path: Path, nnunet: Path) -> None:
    image, mask = draw_image(), draw_mask()
    save_turned(image, tmp_path / "set/images/a.png", 3)
    save_turned(mask, tmp_path / "set/masks/a.png", 3)
    assert convert("folder", tmp_path / "set") == 0
    written, labels = read(nnunet)
    np.testing.assert_array_equal(written, upright(image, 3))
    np.testing.assert_array_equal(labels, upright(mask, 3) // 255)


def test_the_refusal_names_the_cases_and_what_others_say(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    for name, orientation in (("a", 3), ("b", 6), ("c", 1), ("d", 180), ("e", 2)):
        save_turned(draw_image(), tmp_path / f"set/images/{name}.jpg", orientation)
        save_turned(draw_mask(), tmp_path / f"set/masks/{name}.png", None)
    assert convert("folder", tmp_path / "set") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "a, e: image and mask differ in their EXIF orientation" in last
    assert "(1 other pairs fit as stored only); pass --exif stored" in last
    assert convert("folder", tmp_path / "set", "--exif", "upright") == 0
    assert "1 pairs are taken as stored" in capsys.readouterr().err


def test_neither_reading_fits(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    save_turned(draw_image((40, 30)), tmp_path / "set/images/a.jpg", 6)
    save_turned(draw_mask((40, 40)), tmp_path / "set/masks/a.png", None)
    assert convert("folder", tmp_path / "set", "--exif", "stored") == 1
    assert "image 30×40, mask 40×40; width × height, upright after EXIF" in capsys.readouterr().err
