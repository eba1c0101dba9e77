"""The classes of dataset.json and of the command line, and other label values in the predictions."""

import shlex

import numpy as np
import pytest
from evaluation_data import rows, square, write_pngs
from skimage import io

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.evaluation.scored_labels import LabelSet, label_set, parse_labels, translation


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("polyp=255", LabelSet({"polyp": 255})),
        ("whole=1+2,core=2,ignore=3", LabelSet({"whole": (1, 2), "core": 2}, 3)),
        ("background=0,a=1", LabelSet({"a": 1})),
    ],
)
def test_parse_labels(text, expected):
    assert parse_labels(text) == expected


@pytest.mark.parametrize("text", ["", "polyp", "polyp=x", "=1", "background=0", "a=1,,b=2", "a=-1"])
def test_parse_labels_refuses(text):
    with pytest.raises(GuidinoError, match="--labels"):
        parse_labels(text)


def test_list_of_one_value_is_a_label():
    assert label_set({"background": 0, "a": [1]}, "x") == LabelSet({"a": 1})


def test_two_classes_of_one_value_are_none():
    with pytest.raises(GuidinoError, match=r"a and b have the same label values \[1\]"):
        label_set({"a": 1, "b": [1]}, "x")


@pytest.mark.parametrize("value", [1.5, True, None, -1, "1.5", [], [None], {"a": 1}, "²"])
def test_values_that_are_no_label(value):
    with pytest.raises(GuidinoError, match="x"):
        label_set({"background": 0, "a": value}, "x")


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a\tb", "\u2028", "foreground mean"])
def test_names_that_break_a_report(name):
    with pytest.raises(GuidinoError, match="x: .*name"):
        label_set({name: 1}, "x")


def advised(error: str, *options: str) -> list[str]:
    """Return the options that an error advises, as typed words."""
    words = shlex.split(error.replace("(", " ").replace(")", " "))
    return [word for option in options for word in (option, words[words.index(option) + 1])]


def test_advice_for_predictions_of_0_and_255(folders, guidino, tmp_path):
    gt, pred = folders
    for file in sorted(pred.glob("*.png")):
        write_pngs(pred, {file.stem: 255 * io.imread(file)})
    arguments = ["evaluate", "-gt", gt, "-pred", pred, "-o", tmp_path / "out", "-np", 1]
    with pytest.raises(AssertionError, match="pred/a.png holds 255; the labels are") as error:
        guidino(*arguments)
    guidino(*arguments, *advised(str(error.value), "--labels-pred"))
    assert [float(row["dice"]) for row in rows(tmp_path / "out")] == pytest.approx([1, 7 / 8, 6 / 8, 5 / 8])


def test_advice_for_references_of_0_and_255(folders, guidino, tmp_path):
    gt, pred = folders
    for file in sorted(gt.glob("*.png")):
        write_pngs(gt, {file.stem: 255 * io.imread(file)})
    arguments = ["evaluate", "-gt", gt, "-pred", pred, "-o", tmp_path / "out", "-np", 1]
    with pytest.raises(AssertionError, match="gt/a.png holds 255; the labels are") as error:
        guidino(*arguments)
    guidino(*arguments, *advised(str(error.value), "--labels", "--labels-pred"))
    assert [float(row["dice"]) for row in rows(tmp_path / "out")] == pytest.approx([1, 7 / 8, 6 / 8, 5 / 8])


def test_regions_of_other_values(guidino, tmp_path):
    reference = square(5, 5) + square(6, 6, 3)
    gt = write_pngs(tmp_path / "gt", {"a": reference})
    pred = write_pngs(tmp_path / "pred", {"a": np.array([0, 50, 100])[reference]})
    labels = ["--labels", "whole=1+2,core=2", "--labels-pred", "core=100,whole=50+100"]
    guidino("evaluate", "-gt", gt, "-pred", pred, "-o", tmp_path / "out", "-np", 1, *labels)
    assert [float(row["dice"]) for row in rows(tmp_path / "out")] == [1, 1]


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        ("b=255", r"the predictions' labels name \['b'\], the references' \['a'\]"),
        ("a=1+2", "a has 1 label values in the references"),
        ("a=1,a=2", "each name once"),
        ("a=x", "--labels-pred: expected name=value"),
    ],
)
def test_labels_of_the_predictions_that_do_not_fit(predicted, message, guidino, tmp_path):
    gt = write_pngs(tmp_path / "gt", {"a": square(5, 5)})
    arguments = ["-gt", gt, "-pred", gt, "-o", tmp_path / "out", "--labels", "a=1", "--labels-pred", predicted]
    with pytest.raises(AssertionError, match=message):
        guidino("evaluate", *arguments)


def test_one_value_cannot_stand_for_two():
    with pytest.raises(GuidinoError, match="the value 1 of b stands for another class already"):
        translation(LabelSet({"a": 1, "b": 1}), LabelSet({"a": 1, "b": 2}))


def test_the_dataset_json_that_is_meant_is_said(folders, guidino, tmp_path):
    gt, pred = folders
    text = (pred / "dataset.json").read_text()
    (gt / "dataset.json").write_text(text)
    printed = guidino("evaluate", "-gt", gt, "-pred", pred, "-o", tmp_path / "out", "-np", 1)
    assert f"classes: object (from {pred / 'dataset.json'})" in printed
    (gt / "dataset.json").write_text(text.replace(".png", ".bmp"))
    with pytest.raises(AssertionError, match=r"pred/dataset\.json and .*gt/dataset\.json have different file endings"):
        guidino("evaluate", "-gt", gt, "-pred", pred, "-o", tmp_path / "out", "-np", 1)
    printed = guidino("evaluate", "-gt", gt, "-pred", pred, "-o", tmp_path / "out", "-np", 1, "--labels", "object=1")
    assert "classes: object (from the labels given)" in printed
