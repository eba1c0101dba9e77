"""Pair images with masks, and test the names of cases."""

from __future__ import annotations

from pathlib import Path

import pytest
from pairs import convert, draw_image, draw_mask, make_pairs, save

Capture = pytest.CaptureFixture[str]


def rename_all(folder: Path, ending: str) -> None:
    for file in list(folder.iterdir()):
        file.rename(file.with_name(f"{file.stem}{ending}{file.suffix}"))


@pytest.mark.parametrize(
    ("image_ending", "mask_ending"),
    [("", "_mask"), ("_0000", ""), ("_0000", "_mask"), ("", "_seg_mask"), ("-image", " gt"), ("", ".mask")],
)
def test_constant_endings_are_taken_off(
    image_ending: str, mask_ending: str, tmp_path: Path, nnunet: Path, capsys: Capture
) -> None:
    source = make_pairs(tmp_path / "set", ["a_1", "a_2", "b_1"])
    rename_all(source / "images", image_ending)
    rename_all(source / "masks", mask_ending)
    assert convert("folder", source) == 0
    labels = (nnunet / "Dataset500_set" / "labelsTr").iterdir()
    assert sorted(file.name for file in labels) == ["a_1.png", "a_2.png", "b_1.png"]
    error = capsys.readouterr().err
    for kind, ending in (("images", image_ending), ("masks", mask_ending)):
        assert (f"the names of the {kind} end in {ending}, which is removed to pair them" in error) == bool(ending)


def test_constant_beginnings_are_taken_off(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    source = make_pairs(tmp_path / "set", ["1", "2", "3"])
    for kind, beginning in (("images", "img_"), ("masks", "mask_")):
        for file in list((source / kind).iterdir()):
            file.rename(file.with_name(beginning + file.name))
    assert convert("folder", source) == 0
    assert (nnunet / "Dataset500_set" / "labelsTr" / "2.png").is_file()
    assert "the names of the masks begin with mask_, which is removed" in capsys.readouterr().err


def test_names_that_have_nothing_in_common_are_one_problem(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    for number in range(20):
        save(draw_image(), tmp_path / f"set/images/photo{number}.png")
        save(draw_mask(), tmp_path / f"set/masks/{number + 100}.png")
    assert convert("folder", tmp_path / "set") == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert "none of the 20 images has a mask of its name; the masks have names such as" in error[-1]
    assert sum("has a mask of its name" in line for line in error) == 2, "listed once, and as the error"


def test_one_missing_mask_among_endings_is_one_problem(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    source = make_pairs(tmp_path / "set", list("abcdef"))
    rename_all(source / "masks", "_mask")
    (source / "masks" / "c_mask.png").unlink()
    assert convert("folder", source) == 1
    assert "c.jpg: has no mask (problems: 1" in capsys.readouterr().err


def test_endings_do_not_pair_what_differs(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    """A left image and a right mask stay apart, and so do different numbers."""
    for image, mask in (("x_left", "x_right"), ("x_1", "x_2")):
        save(draw_image(), tmp_path / image / "images" / f"{image}.png")
        save(draw_mask(), tmp_path / image / "masks" / f"{mask}.png")
        assert convert("folder", tmp_path / image) == 1
        assert "has no mask" in capsys.readouterr().err


def test_endings_of_matching_names_stay(tmp_path: Path, nnunet: Path) -> None:
    assert convert("folder", make_pairs(tmp_path / "set", ["a_mask", "b_mask"])) == 0
    assert (nnunet / "Dataset500_set" / "labelsTr" / "a_mask.png").is_file()


def test_two_parts_with_one_stem(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    for part in ("Training", "Validation"):
        save(draw_image(), tmp_path / f"isic/ISIC-2017_{part}_Data/ISIC_0000001.jpg")
        save(draw_mask(), tmp_path / f"isic/ISIC-2017_{part}_Part1_GroundTruth/ISIC_0000001_segmentation.png")
    assert convert("isic2017", tmp_path / "isic") == 1
    assert "Validation_Data/ISIC_0000001.jpg: would be the case ISIC_0000001, like" in capsys.readouterr().err
    assert not nnunet.exists()


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a\udcff", "a\u2028b"])
def test_letters_that_cannot_be_printed(name: str, tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    assert convert("folder", make_pairs(tmp_path / "set", [name])) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "letters that cannot be printed" in last
    assert last.isprintable()


def test_a_folder_whose_name_is_no_text(tmp_path: Path, nnunet: Path) -> None:
    assert convert("folder", make_pairs(tmp_path / "set\udcff", ["a"]), "--name", "set") == 0
    table = (nnunet / "Dataset500_set" / "mapping.csv").read_text(encoding="utf-8")
    assert "set\\udcff/images/a.jpg" in table


def test_ignored_names_are_printed_as_one_line(source: Path, nnunet: Path, capsys: Capture) -> None:
    (source / "x\ny\x1b.txt").write_text("")
    assert convert("kvasir-seg", source) == 0
    assert "x\\ny\\x1b.txt" in capsys.readouterr().err


def test_name_too_long_for_nnunet(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    assert convert("folder", make_pairs(tmp_path / "set", ["a" * 250])) == 1
    assert "its name is too long" in capsys.readouterr().err


def test_formulas_are_text_in_the_table(tmp_path: Path, nnunet: Path) -> None:
    assert convert("folder", make_pairs(tmp_path / "set", ['=HYPERLINK("x")'])) == 0
    table = (nnunet / "Dataset500_set" / "mapping.csv").read_text()
    assert "\"'=HYPERLINK" in table
