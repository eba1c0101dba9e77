"""Read splits from lists for train, val and test, or from nnU-Net's own folds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pairs import cases_in, convert, make_pairs, read_splits

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("form", ["txt", "json"])
def test_published_lists(form: str, source: Path, tmp_path: Path, nnunet: Path) -> None:
    lists = {"train": [f"cju{i}" for i in range(7)], "val": ["cju7", "cju8"], "test": ["cju9"]}
    if form == "json":
        files = [tmp_path / "split.json"]
        files[0].write_text(json.dumps(lists))
    else:
        files = [tmp_path / f"{role}.txt" for role in lists]
        for file, names in zip(files, lists.values(), strict=True):
            file.write_text("".join(f"images/{name}.jpg\n" for name in names))
    assert convert("kvasir-seg", source, "--split", *files) == 0
    target = nnunet / "Dataset501_KvasirSEG"
    assert read_splits(target) == [{"train": lists["train"], "val": lists["val"]}]
    assert cases_in(target / "labelsTs") == lists["test"]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([f"cju{i}" for i in range(9)], "cju9: is in none of the lists"),
        ([f"cju{i}" for i in range(11)], "cju10: is in the lists of --split, but not in SRC"),
        ([f"cju{i}" for i in range(10)] + ["cju3"], "cju3: is 2 times in the lists"),
    ],
)
def test_lists_that_do_not_fit(
    train: list[str], message: str, source: Path, tmp_path: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.txt").write_text("\n".join(train))
    assert convert("kvasir-seg", source, "--split", tmp_path / "train.txt") == 1
    assert message in capsys.readouterr().err


def write_json(file: Path, content: object) -> Path:
    file.write_text(json.dumps(content), encoding="utf-8-sig")
    return file


def test_folds_of_nnunet(source: Path, tmp_path: Path, nnunet: Path) -> None:
    names = [f"cju{i}" for i in range(9)]
    folds = [{"train": names[:k] + names[k + 1 :], "val": [names[k]]} for k in range(9)]
    test = tmp_path / "test.txt"
    test.write_text("cju9")
    assert convert("kvasir-seg", source, "--split", write_json(tmp_path / "splits_final.json", folds), test) == 0
    target = nnunet / "Dataset501_KvasirSEG"
    assert read_splits(target) == folds
    assert cases_in(target / "labelsTs") == ["cju9"]


ALL = [f"cju{i}" for i in range(10)]
OTHER_SHAPES = {
    "null": (None, "holds NoneType; expected an object"),
    "number": (5, "holds int; expected an object"),
    "list of names": (ALL, "fold 0: expected an object with the lists train and val"),
    "object of objects": ({"train": {"a": 1}}, "train: expected a list of names"),
    "numbers as names": ({"train": [1, 2]}, "train: expected a list of names"),
    "other keys": ({"training": ALL, "labels": 2}, "'labels' is none of train, val, test"),
    "fold without val": ([{"train": ALL}], "fold 0: expected an object with the lists train and val"),
    "fold with empty val": ([{"train": ALL, "val": []}], "fold 0: train or val is empty"),
    "case in both": ([{"train": ALL, "val": ["cju3"]}], "fold 0: cju3 is in train and in val"),
    "unknown case": ([{"train": ALL, "val": ["x"]}], "x: is in the lists of --split, but not in SRC"),
    "case in no fold": ([{"train": ALL[:8], "val": ["cju8"]}], "cju9: is in none of the lists"),
}


@pytest.mark.parametrize("shape", OTHER_SHAPES)
def test_json_of_another_shape(shape: str, source: Path, tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    content, message = OTHER_SHAPES[shape]
    assert convert("kvasir-seg", source, "--split", write_json(tmp_path / "split.json", content)) == 1
    error = capsys.readouterr().err
    assert message in error
    assert not nnunet.exists()


def test_lists_that_cannot_be_read(source: Path, tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    os.mkfifo(tmp_path / "train.txt")
    (tmp_path / "cut.json").write_text('{"train": [')
    for name, message in (
        ("train.txt", "no regular file"),
        ("cut.json", "is no JSON file"),
        ("no.txt", "does not exist"),
    ):
        assert convert("kvasir-seg", source, "--split", tmp_path / name) == 1
        assert f"{name}" in (error := capsys.readouterr().err)
        assert message in error


def test_few_cases_without_a_split(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    source = make_pairs(tmp_path / "set", ["a", "b", "c"])
    (tmp_path / "train.txt").write_text("a\nb")
    (tmp_path / "val.txt").write_text("c")
    advice = "3 training cases are too few for nnU-Net's five folds"
    assert convert("folder", source) == 0
    assert advice in capsys.readouterr().err
    assert convert("folder", source, "--overwrite", "--split", tmp_path / "train.txt", tmp_path / "val.txt") == 0
    assert advice not in capsys.readouterr().err
