"""Test the one cut for all masks of a data set, and refusals and warnings instead of guesses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pairs import convert, draw_image, draw_mask, save, thin_lines
from PIL import Image, ImageFilter

Capture = pytest.CaptureFixture[str]


def make_set(folder: Path, masks: list[Image.Image], ending: str = ".png") -> Path:
    for number, mask in enumerate(masks):
        save(draw_image(mask.size, seed=number), folder / "images" / f"{number:02}.png")
        save(mask, folder / "masks" / f"{number:02}{ending}")
    return folder


def read_labels(nnunet: Path, number: int) -> np.ndarray:
    with Image.open(nnunet / "Dataset500_set" / "labelsTr" / f"{number:02}.png") as labels:
        return np.asarray(labels)


def flat(*levels: int) -> Image.Image:
    """Draw stripes of equal height, one per level."""
    return Image.fromarray(np.repeat(np.array(levels, np.uint8), 12)[:, None].repeat(40, axis=1))


def test_thin_soft_masks_are_cut_at_one_level(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    drawn = [thin_lines(seed) for seed in range(12)]
    assert convert("folder", make_set(tmp_path / "set", [mask for mask, _ in drawn])) == 0
    for number, (_, expected) in enumerate(drawn):
        np.testing.assert_array_equal(read_labels(nnunet, number), expected)
    assert "masks: levels 0 and 255, with soft or noisy edges; all cut at 127.5" in capsys.readouterr().out


def test_blobs_and_thin_masks_share_the_cut(tmp_path: Path, nnunet: Path) -> None:
    blob = draw_mask((256, 256)).filter(ImageFilter.GaussianBlur(2))
    lines, expected = thin_lines(3)
    assert convert("folder", make_set(tmp_path / "set", [blob, lines, draw_mask((256, 256)), flat(0, 0)])) == 0
    np.testing.assert_array_equal(read_labels(nnunet, 1), expected)
    np.testing.assert_array_equal(read_labels(nnunet, 0), np.asarray(blob) > 127)


def test_no_clear_level_is_refused_until_the_cut_is_given(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    y, x = np.mgrid[:80, :80]
    spots = [255 * np.exp(-((x - c) ** 2 + (y - 40) ** 2) / 128) for c in (30, 45)]
    source = make_set(tmp_path / "set", [Image.fromarray(spot.astype(np.uint8)) for spot in spots])
    assert convert("folder", source) == 1
    assert "no mask has a clear level of foreground" in capsys.readouterr().err
    assert convert("folder", source, "--cut", 200) == 0
    assert "masks: cut at 200 as asked for" in capsys.readouterr().out
    np.testing.assert_array_equal(read_labels(nnunet, 1), spots[1].astype(np.uint8) > 200)


AMBIGUOUS = {
    "neither is 0": ([flat(1, 2), flat(2, 1)], "has the levels 1 and 2, neither of them 0", ["background=1,a=2"]),
    "a class of its own in each file": ([flat(0, 2), flat(0, 3)], "expected one encoding", ["a=2,b=3"]),
    "0/1 among 0/255": ([flat(0, 1), flat(0, 255)], "its levels end at 1, those of", ["a=1,b=255"]),
    "0/128 among 0/255": ([flat(0, 128), flat(0, 255)], "its levels end at 128", ["a=128,b=255"]),
    "thin ones brighter than areas": ([thin_lines(0)[0], flat(0, 180)], "at 180; expected one encoding", None),
    "full at another level": ([flat(180), flat(0, 255)], "its levels end at 180", ["a=180,b=255"]),
    "all are full": ([flat(255), flat(255)], "no mask has both foreground and background", None),
}


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_ambiguous_levels_are_refused(what: str, tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    masks, message, labels = AMBIGUOUS[what]
    source = make_set(tmp_path / "set", masks)
    assert convert("folder", source) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not nnunet.exists()
    assert convert("folder", source, *(["--labels", *labels] if labels else ["--cut", 127])) == 0, "the advice works"


def test_full_and_mostly_bright_masks_are_said(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    source = make_set(tmp_path / "set", [flat(255), flat(0, 255, 255), flat(0, 255, 255, 255)])
    assert convert("folder", source) == 0
    error = capsys.readouterr().err
    assert "1 masks are full, foreground everywhere: 00" in error
    assert "the foreground covers 81% of the masks" in error


def test_empty_masks_are_not_bright(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    assert convert("folder", make_set(tmp_path / "set", [flat(0, 0), flat(0, 0), flat(0, 255)])) == 0
    error = capsys.readouterr().err
    assert "2 masks are empty: 00, 01" in error
    assert "the foreground covers" not in error


@pytest.mark.parametrize("soft", [False, True])
def test_dark_foreground(soft: bool, tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    masks = [draw_mask((80, 60)).point(lambda level: 255 - level) for _ in range(2)]
    if soft:
        masks = [mask.filter(ImageFilter.GaussianBlur(1)) for mask in masks]
    source = make_set(tmp_path / "set", masks)
    assert convert("folder", source, "--labels", "background=255,polyp=0") == 0
    assert "foreground is below 127.5" in capsys.readouterr().out
    np.testing.assert_array_equal(read_labels(nnunet, 0), np.asarray(masks[0]) < 127.5)


def test_all_masks_empty(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    source = make_set(tmp_path / "set", [flat(0, 0), flat(0, 0)])
    for labels in ("polyp", "polyp=1,tool=2"):
        assert convert("folder", source, "--labels", labels) == 1
        assert "all training masks are empty" in capsys.readouterr().err


def test_a_class_without_pixels_is_said(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    source = make_set(tmp_path / "set", [flat(0, 1), flat(0, 0)])
    assert convert("folder", source, "--labels", "polyp=1,tool=2") == 0
    error = capsys.readouterr().err
    assert "label tool: is in no training mask" in error
    assert "1 masks are empty: 01" in error


def test_cut_and_values_exclude_each_other(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    source = make_set(tmp_path / "set", [flat(0, 1)])
    assert convert("folder", source, "--labels", "a=1,b=2", "--cut", 1) == 1
    assert "--cut is for masks of two levels" in capsys.readouterr().err
