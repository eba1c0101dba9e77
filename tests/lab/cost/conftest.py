"""A data set of which nothing is there but plans and dataset.json."""

import json

import planned
import pytest

DATASET_JSON = {
    "channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "polyp": 1}, "file_ending": ".png",
    "numTraining": 4,
}  # fmt: skip


@pytest.fixture
def planned_dataset(tmp_path, monkeypatch, tiny_encoder):
    """Its folder, in which there are nnUNetPlans and their sibling nnUNetPlansB; nnUNet_results may not be written."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("nnUNet_results", "/proc/nothing_can_be_written_here")
    folder = tmp_path / "nnUNet_preprocessed" / planned.DATASET
    folder.mkdir()
    guide = {"encoder": str(tiny_encoder("dinov3")), "min_input_size": 64, "prototypes": 8}
    for name in ("nnUNetPlans", "nnUNetPlansB"):
        (folder / f"{name}.json").write_text(json.dumps(planned.plans(guide).plans))
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return folder
