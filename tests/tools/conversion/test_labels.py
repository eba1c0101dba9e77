"""Test accepted and refused values of --labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pairs import convert, draw_image, save
from PIL import Image

from nnunetv2_guidino.tools.conversion.labels import Labels
from nnunetv2_guidino.tools.conversion.masks import TwoLevels, Values

BAD_LABELS = ["a=0", "a=65536", "a=1,a=2", "a=1,b=1", "a,b", "background=1", "=1", "a=x", "", "ignore", "ignore=255"]
BAD_LABELS += ["background=1,a=1", "a=#ff0000,b=2", "a=#ff", "a\nb=1", "a\x1b=1", "background,a=1", "a=1,b"]


@pytest.mark.parametrize("labels", BAD_LABELS)
def test_bad_labels(labels: str, source: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        convert("folder", source, "--labels", labels)
    assert "argument --labels" in capsys.readouterr().err


def test_kinds_of_labels() -> None:
    assert Labels.parse("polyp") == Labels(("polyp",), TwoLevels())
    assert Labels.parse("a=2, b c=1") == Labels(("a", "b c"), Values((2, 1)))
    assert Labels.parse("background=255,a=0") == Labels(("a",), TwoLevels(background=255, foreground=0))
    assert Labels.parse("background=9,a=0,b=1") == Labels(("a", "b"), Values((0, 1), background=9))
    assert Labels.parse("a=#FF0000") == Labels(("a",), Values((0xFF0000,), coloured=True))


def test_ignore_is_the_last_label(tmp_path: Path, nnunet: Path) -> None:
    """nnU-Net refuses an ignore label that is not the highest."""
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    values = np.repeat(np.array([0, 255, 1, 2], np.uint8), 10)[:, None].repeat(30, axis=1)
    save(draw_image((30, 40)), tmp_path / "set/images/a.png")
    save(Image.fromarray(values), tmp_path / "set/masks/a.png")
    assert convert("folder", tmp_path / "set", "--labels", "ignore=255,a=1,b=2") == 0
    labels = json.loads((nnunet / "Dataset500_set/dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "a": 1, "b": 2, "ignore": 3}
    assert LabelManager(labels, None).ignore_label == 3
    with Image.open(nnunet / "Dataset500_set/labelsTr/a.png") as written:
        assert np.unique(np.asarray(written)).tolist() == [0, 1, 2, 3]
