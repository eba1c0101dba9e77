"""Test the splits and layouts of each data set, and the ways to call its converter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pairs import (
    cases_in,
    convert,
    draw_image,
    draw_mask,
    make_isic,
    make_pairs,
    make_tn3k,
    read_splits,
    save,
    write_folds,
)
from PIL import Image

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.conversion import converters
from nnunetv2_guidino.tools.conversion.conversion import RefusedError
from nnunetv2_guidino.tools.conversion.conversion import convert as convert_function
from nnunetv2_guidino.tools.conversion.labels import Labels

REPOSITORY = Path(__file__).resolve().parents[3]


# Kvasir-SEG


def test_kvasir_seg_80_10_10(tmp_path: Path, nnunet: Path) -> None:
    source = make_pairs(tmp_path / "source", [f"cju{i:02}" for i in range(30)])
    assert convert("kvasir-seg", source) == 0
    target = nnunet / "Dataset501_KvasirSEG"
    (fold,) = read_splits(target)
    test = cases_in(target / "labelsTs")
    assert (len(fold["train"]), len(fold["val"]), len(test)) == (24, 3, 3)
    assert sorted(fold["train"] + fold["val"]) == cases_in(target / "labelsTr")
    assert sorted(fold["train"] + fold["val"] + test) == [f"cju{i:02}" for i in range(30)]
    assert (fold["val"], test) == (["cju03", "cju08", "cju15"], ["cju12", "cju18", "cju26"]), "the seed is fixed"


# ISIC 2017


@pytest.mark.parametrize("zipped", [False, True])
def test_isic2017_official_split(zipped: bool, tmp_path: Path, nnunet: Path) -> None:
    source = make_isic(tmp_path / "isic", {"Training": 6, "Validation": 2, "Test_v2": 3})
    sources = [source]
    if zipped:
        sources = [Path(shutil.make_archive(str(folder), "zip", source, folder.name)) for folder in source.iterdir()]
        assert len(sources) == 6
    assert convert("isic2017", *sources) == 0
    target = nnunet / "Dataset502_ISIC2017"
    names = [f"ISIC_{number:07}" for number in range(11)]
    assert read_splits(target) == [{"train": names[:6], "val": names[6:8]}]
    assert cases_in(target / "labelsTr") == names[:8]
    assert cases_in(target / "labelsTs") == names[8:]


def test_isic2017_without_training_part(tmp_path: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert("isic2017", make_isic(tmp_path / "isic", {"Validation": 5})) == 0
    assert "Training: the number of cases is 0 instead of 2,000" in capsys.readouterr().err
    assert not list(nnunet.parent.rglob("splits_final.json")), "the official fold needs both parts"


def test_isic2017_without_training_cases(tmp_path: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert("isic2017", make_isic(tmp_path / "isic", {"Test_v2": 2})) == 1
    assert "no training cases" in capsys.readouterr().err


# TN3K


def test_tn3k_folds_are_positions_in_numerical_order(tmp_path: Path, nnunet: Path) -> None:
    source = make_tn3k(tmp_path / "tn3k", ["9", "10", "8", "100", "2"], ["0", "1"])
    write_folds(source, 5)
    assert convert("tn3k", source) == 0
    target = nnunet / "Dataset503_TN3K"
    assert [fold["val"] for fold in read_splits(target)] == [[f"trainval_{n}"] for n in (2, 8, 9, 10, 100)]
    assert cases_in(target / "labelsTs") == ["test_0", "test_1"]


@pytest.mark.parametrize("grey", [True, False])
def test_tn3k_has_one_channel_if_all_images_are_grey(grey: bool, tmp_path: Path, nnunet: Path) -> None:
    source = make_tn3k(tmp_path / "tn3k", list("01234"), [])
    save(draw_image((16, 12), grey=True).convert("RGB"), source / "trainval-image" / "5.png")
    save(draw_image((16, 12), grey=grey), source / "trainval-image" / "6.png")
    for number in "56":
        save(draw_mask((16, 12)), source / "trainval-mask" / f"{number}.png")
    assert convert("tn3k", source, "--no-split") == 0
    target = nnunet / "Dataset503_TN3K"
    channels = json.loads((target / "dataset.json").read_text())["channel_names"]
    assert channels == ({"0": "grey"} if grey else {"0": "R", "1": "G", "2": "B"})
    for file in (target / "imagesTr").iterdir():
        with Image.open(file) as image:
            assert image.mode == ("L" if grey else "RGB")


def test_tn3k_folds_that_do_not_fit(tmp_path: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_tn3k(tmp_path / "tn3k", list("01234"), [])
    write_folds(source, 6)
    (source / "tn3k-trainval-fold4.json").unlink()
    assert convert("tn3k", source) == 1
    error = capsys.readouterr().err
    assert "fold0.json: is no fold of the 5 trainval images" in error
    assert "found 4 of the five" in error


@pytest.mark.slow
def test_tn3k_official_folds(
    real_data: Callable[[str], Path], tmp_path: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_tn3k(tmp_path / "tn3k", [f"{i:04}" for i in range(2879)], [f"{i:04}" for i in range(614)])
    for file in real_data("tn3k-parts").glob("*.json"):
        shutil.copy(file, source)
    assert convert("tn3k", source, "-np", "2") == 0
    assert "warning" not in capsys.readouterr().err
    splits = read_splits(nnunet / "Dataset503_TN3K")
    assert [len(fold["val"]) for fold in splits] == [576, 576, 576, 576, 575]
    for k, fold in enumerate(splits):
        official = json.loads((source / f"tn3k-trainval-fold{k}.json").read_text())
        assert fold["val"] == [f"trainval_{position:04}" for position in official["val"]]
        assert len(set(fold["train"]) | set(fold["val"])) == 2879


# any folder


def test_folder_with_label_maps(tmp_path: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "my data"
    levels = np.array(draw_mask())
    levels[:8, :10] = 100
    save(draw_image(grey=True), source / "images" / "a.tif")
    save(Image.fromarray(levels), source / "masks" / "a.bmp")
    assert convert("folder", source) == 1
    assert "no two-level mask" in capsys.readouterr().err
    assert convert("folder", source, "--labels", "tool=100") == 1
    assert "[255], which --labels does not name" in capsys.readouterr().err
    assert convert("folder", source, "--labels", "polyp=255, tool=100", "-d", "42") == 0
    target = nnunet / "Dataset042_my_data"
    assert json.loads((target / "dataset.json").read_text())["labels"] == {"background": 0, "polyp": 1, "tool": 2}
    with Image.open(target / "labelsTr" / "a.png") as labels:
        np.testing.assert_array_equal(np.asarray(labels), np.select([levels == 255, levels == 100], [1, 2]))


# one more


NEW = '''"""Two-part data set of a test."""

from nnunetv2_guidino.tools.conversion.dataset import IMAGE_SUFFIX, Dataset

DATASET = Dataset(
    id=777,
    name="New",
    image=rf"(?P<part>train|test)/photo/(?P<stem>[^/]+){IMAGE_SUFFIX}",
    mask=rf"(?P<part>train|test)/truth/(?P<stem>[^/]+){IMAGE_SUFFIX}",
    layout="{train,test}/photo and {train,test}/truth",
    labels=("spot",),
    case_name="{part}_{stem}",
    test_part="test",
)
'''


def test_a_new_converter_is_one_file_and_one_line(
    tmp_path: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(REPOSITORY / "dataset_conversion", tmp_path / "converters")
    (tmp_path / "converters" / "Dataset777_New.py").write_text(NEW)
    monkeypatch.setattr(converters, "converters_folder", lambda: tmp_path / "converters")
    monkeypatch.setitem(converters.CONVERTERS, "new", ("Dataset777_New", "a data set of a test"))
    for part in ("train", "test"):
        save(draw_image(), tmp_path / f"set/{part}/photo/a.png")
        save(draw_mask(), tmp_path / f"set/{part}/truth/a.png")
    assert convert("new", tmp_path / "set") == 0
    assert cases_in(nnunet / "Dataset777_New" / "labelsTr") == ["train_a"]
    assert cases_in(nnunet / "Dataset777_New" / "labelsTs") == ["test_a"]


def test_convert_from_python(source: Path, tmp_path: Path, nnunet: Path) -> None:
    """As the how-to says."""
    dataset = converters.load_converter("folder")
    report = convert_function(
        [source], dataset, tmp_path / "raw", dataset_id=7, labels=Labels.parse("polyp=255,tool=9")
    )
    assert (report.folder, report.training, report.test) == (tmp_path / "raw" / "Dataset007_Kvasir_SEG", 10, 0)
    assert report.masks == "label maps of polyp=255, tool=9"
    assert report.warnings == ["label tool: is in no training mask"]
    (source / "masks" / "cju3.png").unlink()
    with pytest.raises(RefusedError, match="has no mask") as refused:
        convert_function([source], converters.load_converter("kvasir-seg"), published_split=False)
    assert len(refused.value.report.problems) == 1
    with pytest.raises(GuidinoError, match="there is no converter 'kvasir'; expected one of kvasir-seg, isic2017"):
        converters.load_converter("kvasir")


# ways to call


@pytest.mark.parametrize("script", ["Dataset501_KvasirSEG", "folder"])
def test_scripts_run_from_a_clone_that_is_not_installed(
    script: str, source: Path, nnunet: Path, tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, REPOSITORY / "dataset_conversion" / f"{script}.py", source, "-np", "2"]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    failed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "exists; pass --overwrite" in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr


def test_converters_run_from_where_a_wheel_puts_them(source: Path, nnunet: Path, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "nnunetv2_guidino", tmp_path / "site" / "nnunetv2_guidino")
    installed = tmp_path / "site" / "nnunetv2_guidino" / "dataset_conversion"
    shutil.copytree(REPOSITORY / "dataset_conversion", installed)
    command = [sys.executable, "-m", "nnunetv2_guidino.cli", "convert", "kvasir-seg", source, "-np", "2"]
    subprocess.run(command, check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "site")})
    assert (nnunet / "Dataset501_KvasirSEG" / "dataset.json").is_file()
