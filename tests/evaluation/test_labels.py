"""The classes: from dataset.json, from the command line, and where other values stand for them in the predictions."""

import pytest

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.evaluation.labels import LabelSet, label_set, parse_labels


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
