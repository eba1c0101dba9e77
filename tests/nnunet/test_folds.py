"""nnU-Net's folds."""

import json

import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.folds import preprocessed_cases, read_folds, stock_folds

CASES = [f"case{number}" for number in range(7)]


def test_folds_are_read_as_they_are(tmp_path):
    folds = [{"train": CASES[:5], "val": CASES[5:]}, {"train": CASES[2:], "val": CASES[:2]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    assert read_folds(tmp_path / "splits_final.json") == folds


@pytest.mark.parametrize("fold", [{"train": ["a"]}, {"train": ["a"], "val": "b"}, {"train": [1], "val": ["b"]}, ["a"]])
def test_a_fold_of_another_shape_is_named(fold, tmp_path):
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}, fold]))
    with pytest.raises(GuidinoError, match="splits_final.json: fold 1 is not an object with train and val, two lists"):
        read_folds(tmp_path / "splits_final.json")


def test_without_a_file_the_folds_are_nnunet_s(tmp_path):
    assert stock_folds(CASES, tmp_path / "splits_final.json") == generate_crossval_split(CASES, seed=12345, n_splits=5)
    with pytest.raises(GuidinoError, match="nnU-Net's own split needs 5 cases, there are 4; write .*splits_final.json"):
        stock_folds(CASES[:4], tmp_path / "splits_final.json")


def test_preprocessed_cases_are_sorted_or_missing(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.b2nd").touch()
        (tmp_path / f"{name}_seg.b2nd").touch()
    assert preprocessed_cases(tmp_path, "2d") == ["a", "b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(GuidinoError, match="empty has no cases as nnU-Net preprocesses them; run nnUNetv2_preprocess"):
        preprocessed_cases(tmp_path / "empty", "2d")
