import json
from pathlib import Path

import pytest
from evaluation_data import square, write_pngs


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """References and predictions of four cases; predictions are shifted by 0 to 3 pixels. One class, 'object'."""
    names = ("a", "b", "c", "d")
    gt = write_pngs(tmp_path / "gt", {name: square(10, 10) for name in names})
    pred = write_pngs(tmp_path / "pred", {name: square(10, 10 + shift) for shift, name in enumerate(names)})
    dataset = {"labels": {"background": 0, "object": 1}, "channel_names": {"0": "x"}, "file_ending": ".png"}
    (pred / "dataset.json").write_text(json.dumps(dataset))
    return gt, pred
