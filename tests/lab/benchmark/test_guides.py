"""Guides of finished trainings: scored once, scored again after a change, and their tables."""

import numpy as np
import pandas as pd
import pytest

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.benchmark import guides
from nnunetv2_guidino.lab.benchmark.guides import (
    KeptGuide,
    case_rows,
    guides_and_segmentations,
    keep_guides,
    training_rows,
)
from nnunetv2_guidino.lab.benchmark.job import Job
from nnunetv2_guidino.tools.guide.guide_alone import GuideOfCase, GuideOfClass
from nnunetv2_guidino.tools.guide.guide_scores import Histogram, histogram

TRUTH = np.zeros((1, 10, 10), bool)
TRUTH[0, :5] = True


def histogram_of(inside: float, outside: float, truth=TRUTH) -> Histogram:
    """Return the histogram of a guide with one value in the upper half and one in the lower."""
    return histogram(np.where(TRUTH, inside, outside), truth, TRUTH | True)


def entry(case: str, values: Histogram, dice: float, name: str = "lesion") -> dict[str, object]:
    return {"case": case, "class": name, "segmentation_dice": dice} | {
        k: v.tolist() for k, v in values._asdict().items()
    }


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Return a plain and two guided trainings, and the list of scored guides; the guide of seed 1 fails."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    made: list[str] = []

    def guides_alone(model_folder, fold, device, raw):
        made.append(f"{model_folder.name} {fold} {device} {raw.name}")
        if "seed1" in model_folder.name:
            raise RuntimeError("CUDA out of memory")
        yield GuideOfCase("a", [GuideOfClass("lesion", histogram_of(0.7, 0.1), 0.9)], np.full((1, 5, 5), 7, np.uint8))

    monkeypatch.setattr(guides, "guides_alone", guides_alone)
    monkeypatch.setattr(guides, "guide_of_checkpoint", lambda file: None if "plain" in str(file) else "a guide")
    found = []
    for trainer in ("plain", "guided_seed0", "guided_seed1"):
        seed = int(trainer[-1]) if "_" in trainer else None
        job = Job("Dataset901_X", "2d", trainer.partition("_")[0], "P", trainer, "0", seed, None, tmp_path, "cpu")
        job.folder.mkdir(parents=True)
        (job.folder / "checkpoint_final.pth").write_bytes(b"weights")
        found.append(job)
    return found, made


def test_made_once_renewed_with_the_checkpoint_and_a_failure_is_a_note(jobs, tmp_path):
    (plain, guided, failing), made = jobs
    notes: list[str] = []
    kept = keep_guides([plain, guided, failing], tmp_path / "out", print, notes)
    assert list(kept) == [guided]
    assert made == ["guided_seed0__P__2d 0 cpu Dataset901_X", "guided_seed1__P__2d 0 cpu Dataset901_X"]
    (note,) = notes
    assert note.endswith("guided fold 0 seed 1 cannot be scored: RuntimeError: CUDA out of memory")
    assert not KeptGuide(failing, tmp_path / "out").folder.exists()
    assert kept[guided].entries[0]["segmentation_dice"] == 0.9
    assert (kept[guided].picture("a") == 7).all()
    assert kept[guided].picture("b") is None
    (kept[guided].folder / "pictures" / "a.npz").write_bytes(b"PK damaged")
    assert kept[guided].picture("a") is None

    made.clear()
    keep_guides([plain, guided], tmp_path / "out", print, notes)
    assert made == []
    (guided.folder / "checkpoint_final.pth").write_bytes(b"others' weights")
    keep_guides([plain, guided], tmp_path / "out", print, notes)
    assert len(made) == 1
    (kept[guided].folder / "scores.json").write_text("{")  # damaged
    keep_guides([plain, guided], tmp_path / "out", print, notes)
    assert len(made) == 2


def test_an_error_of_the_user_is_told_in_its_own_words(jobs, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise GuidinoError("raw images are not there")
        yield

    monkeypatch.setattr(guides, "guides_alone", refuse)
    notes: list[str] = []
    keep_guides(jobs[0][1:2], tmp_path / "out", print, notes)
    assert notes[0].endswith("cannot be scored: raw images are not there")


def test_a_training_s_row(tmp_path):
    low, high = entry("a", histogram_of(0.4, 0.1), 0.9), entry("b", histogram_of(0.7, 0.32), 0.8)
    (row,) = training_rows([low, high]).to_dict("records")
    assert row["guide_dice"] == pytest.approx(0.5)  # 0 and 1
    assert row["best_threshold"] == pytest.approx(0.35)
    assert row["best_dice"] == 1
    assert row["segmentation_dice"] == pytest.approx(0.85)
    assert row["calibration_error"] == pytest.approx((0.6 + 0.1 + 0.3 + 0.32) / 4)
    assert case_rows([low, high])["guide_dice"].tolist() == [0, 1]


def test_finding_nothing_where_nothing_is_counts_beside_a_false_alarm():
    empty = TRUTH & False
    right = entry("a", histogram_of(0.1, 0.1, empty), np.nan)
    alarm = entry("b", histogram_of(0.1, 0.1, empty), 0.0)
    (row,) = training_rows([right, alarm]).to_dict("records")
    assert (row["cases"], row["guide_dice"], row["segmentation_dice"]) == (1, 1, 0)
    cases = case_rows([right, alarm]).assign(method="guided", run="0")
    (beside,) = guides_and_segmentations(cases).to_dict("records")
    assert beside["above_guide"] == -1
    (row,) = training_rows([right]).to_dict("records")
    assert row["cases"] == 0
    assert np.isnan(row["guide_dice"])


def test_beside_segmentations_are_paired_in_cases_and_seeds():
    rng = np.random.default_rng(0)
    guide = rng.uniform(0.3, 0.9, (3, 20))
    rows = [
        {"method": "guided", "run": str(run), "case": f"c{i}", "class": name, "guide_dice": guide[run, i]}
        | {"segmentation_dice": guide[run, i] + 0.05}
        for run in range(3)
        for i in range(20)
        for name in ("a", "b")
    ]
    table = guides_and_segmentations(pd.DataFrame(rows)).set_index("class")
    assert list(table.index) == ["a", "b", "foreground mean"]
    for name in table.index:
        of_class = table.loc[name]
        assert of_class["above_guide"] == pytest.approx(0.05)
        assert of_class["above_guide_low"] == pytest.approx(0.05)  # the same in every case and seed
        assert of_class["guide_dice_low"] < of_class["guide_dice"] < of_class["guide_dice_high"]
