import json
from pathlib import Path

import planned
import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """nnUNet_preprocessed with one data set and nnU-Net's plans, without a guide section."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "nnUNet_preprocessed"))
    folder = tmp_path / "nnUNet_preprocessed" / planned.DATASET
    folder.mkdir(parents=True)
    plans = planned.plans({}).plans
    del plans["guidino"]
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    dataset = {"labels": {"background": 0, "polyp": 1}, "channel_names": {"0": "R", "1": "G", "2": "B"}}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder
