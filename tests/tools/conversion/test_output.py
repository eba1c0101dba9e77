"""Test the files that a conversion writes."""

from __future__ import annotations

import csv
import json
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pairs import convert, draw_mask, make_pairs, names_in
from PIL import Image

from nnunetv2_guidino import workers


def read_mapping(target: Path) -> list[dict[str, str]]:
    with (target / "mapping.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_output(source: Path, nnunet: Path) -> None:
    assert convert("kvasir-seg", source, "--no-split") == 0
    target = nnunet / "Dataset501_KvasirSEG"
    assert names_in(nnunet) == [target.name]
    assert names_in(target) == ["dataset.json", "imagesTr", "labelsTr", "mapping.csv"]
    assert names_in(target / "imagesTr") == [f"cju{i}_0000.png" for i in range(10)]
    assert names_in(target / "labelsTr") == [f"cju{i}.png" for i in range(10)]
    with Image.open(source / "images" / "cju3.jpg") as original, Image.open(target / "imagesTr/cju3_0000.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(original))
    with Image.open(target / "labelsTr" / "cju3.png") as labels:
        np.testing.assert_array_equal(np.asarray(labels), np.asarray(draw_mask()) // 255)

    description = json.loads((target / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert description["labels"] == {"background": 0, "polyp": 1}
    assert (description["numTraining"], description["file_ending"]) == (10, ".png")
    assert all(description[key] for key in ("reference", "licence", "release", "description"))
    rows = read_mapping(target)
    assert [row["case"] for row in rows] == [f"cju{i}" for i in range(10)]
    assert float(rows[0]["foreground_fraction"]) == pytest.approx(np.mean(np.asarray(draw_mask()) > 0), abs=1e-6)
    del rows[0]["foreground_fraction"]
    assert rows[0] == {
        "case": "cju0",
        "original_image": "Kvasir-SEG/images/cju0.jpg",
        "original_mask": "Kvasir-SEG/masks/cju0.png",
        "split": "trainval",
        "width": "40",
        "height": "30",
    }


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_write_the_same(method: str, source: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get_context = workers.multiprocessing.get_context
    monkeypatch.setattr(workers.multiprocessing, "get_context", lambda _: get_context(method))
    assert convert("kvasir-seg", source) == 0
    assert convert("kvasir-seg", source, "-np", 2, "-o", nnunet.parent / "other") == 0
    written, by_workers = (
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in (nnunet, nnunet.parent / "other")
    )
    assert written == by_workers


def test_source_may_be_parent_images_in_depth_or_zip(source: Path, nnunet: Path) -> None:
    nested = source.parent / "a" / "b"
    nested.mkdir(parents=True)
    archive = source.parent / "kvasir-seg.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in source.rglob("*.*"):
            file.write(path, path.relative_to(source.parent))
    source = source.rename(nested / source.name)
    for src in (archive, source, nested, nested.parent):
        assert convert("kvasir-seg", src, "--overwrite", "--no-split") == 0
        assert len(names_in(nnunet / "Dataset501_KvasirSEG" / "labelsTr")) == 10


def test_names_are_kept(tmp_path: Path, nnunet: Path) -> None:
    names = ["with space", "brackets [1] (2)", "größe_übel", "点", "dots.in.name", "per%cent{0}"]
    source = make_pairs(tmp_path / "source", names)
    decomposed = source / "masks" / (unicodedata.normalize("NFD", "größe_übel") + ".png")
    (source / "masks" / "größe_übel.png").rename(decomposed)  # as macOS writes it
    assert convert("folder", source) == 0
    assert {row["case"] for row in read_mapping(nnunet / "Dataset500_source")} == set(names)
    assert names_in(nnunet / "Dataset500_source" / "labelsTr") == sorted(f"{name}.png" for name in names)


def test_ignored_files_are_listed_once(source: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "kavsir_bboxes.json").write_text("{}")
    (source / ".DS_Store").write_text("")
    assert convert("kvasir-seg", source) == 0
    error = capsys.readouterr().err
    assert error.count("kavsir_bboxes.json") == 1
    assert ".DS_Store" not in error
    assert "warning: KvasirSEG: the number of cases is 10 instead of 1,000 (-990)" in error


def test_resize(source: Path, nnunet: Path) -> None:
    assert convert("kvasir-seg", source, "--resize", 16, 20, "--no-split") == 0
    target = nnunet / "Dataset501_KvasirSEG"
    with Image.open(target / "imagesTr" / "cju0_0000.png") as image, Image.open(target / "labelsTr/cju0.png") as labels:
        assert image.size == labels.size == (20, 16)
        assert np.unique(np.asarray(labels)).tolist() == [0, 1]
    row = read_mapping(target)[0]
    assert [row[key] for key in ("width", "height", "original_width", "original_height")] == ["20", "16", "40", "30"]
    assert "Resized to 16 × 20" in json.loads((target / "dataset.json").read_text())["description"]


def test_preview(source: Path, nnunet: Path, tmp_path: Path) -> None:
    assert convert("kvasir-seg", source, "--preview", tmp_path / "three.png") == 0
    with Image.open(tmp_path / "three.png") as sheet:
        yellow = np.all(np.asarray(sheet) == (255, 255, 0), axis=-1)
        assert [column.any() for column in np.hsplit(yellow, 3)] == [True, True, True]
