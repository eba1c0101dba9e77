"""The guide alone: its scores in each finished training, kept in the output folder, and their tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pandas as pd

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import filled_folder, read_json
from nnunetv2_guidino.lab.benchmark.job import Job
from nnunetv2_guidino.lab.benchmark.local import Log
from nnunetv2_guidino.nnunet.folders import folder_of
from nnunetv2_guidino.tools.evaluation.intervals import mean_intervals
from nnunetv2_guidino.tools.evaluation.metrics import FOREGROUND
from nnunetv2_guidino.tools.guide.guide_alone import CHECKPOINT, guides_alone
from nnunetv2_guidino.tools.guide.guide_scores import BINS, HALF, THRESHOLDS, Histogram
from nnunetv2_guidino.training.shared_plans import guide_of_checkpoint

BOTH = ["segmentation_dice", "guide_dice"]
GUIDE_COLUMNS = [*BOTH, "above_guide"]


class KeptGuide:
    """The scores and pictures of one training's guide, in a folder of their own.

    Args:
        job: The training.
        output: The benchmark's folder.
    """

    def __init__(self, job: Job, output: Path):
        self.job = job
        self.folder = output / "guides" / job.folder.relative_to(job.results)

    def is_current(self) -> bool:
        """Return whether the scores come from the present checkpoint."""
        try:
            return read_json(self.folder / "scores.json", dict).get("made_from") == self._made_from()
        except GuidinoError:
            return False

    def make(self) -> None:
        """Score the guide on the validation cases, on the training's device.

        Raises:
            GuidinoError: As `guides_alone` does.
        """
        entries = []
        made_from = self._made_from()
        with filled_folder(self.folder) as folder:
            (folder / "pictures").mkdir()
            raw = folder_of("nnUNet_raw") / self.job.dataset
            for found in guides_alone(self.job.model_folder, self.job.fold, self.job.device, raw):
                np.savez_compressed(folder / "pictures" / f"{found.case}.npz", guide=found.picture)
                for name, values, dice in found.classes:
                    counts = {key: array.tolist() for key, array in values._asdict().items()}
                    entries.append({"case": found.case, "class": name, "segmentation_dice": dice, **counts})
            (folder / "scores.json").write_text(json.dumps({"made_from": made_from, "cases": entries}))

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """Return an entry for each case and class: case, class, segmentation_dice and the fields of a Histogram."""
        return [dict(entry) for entry in read_json(self.folder / "scores.json", dict)["cases"]]

    def picture(self, case: str) -> npt.NDArray[np.uint8] | None:
        """Return the guide of a case as `GuideOfCase` has it; None if it is missing or cannot be read."""
        try:
            with np.load(self.folder / "pictures" / f"{case}.npz", allow_pickle=False) as content:
                return np.asarray(content["guide"])
        except (OSError, ValueError, KeyError, BadZipFile):
            return None

    def _made_from(self) -> list[int]:
        """Return the size and time of the checkpoint, and the number of the histogram's bins."""
        status = (self.job.folder / CHECKPOINT).stat()
        return [status.st_size, status.st_mtime_ns, BINS]


def keep_guides(jobs: Sequence[Job], output: Path, log: Log, notes: list[str]) -> dict[Job, KeptGuide]:
    """Return the guides of finished trainings; score them first unless their scores come from the present checkpoint.

    Args:
        jobs: Finished trainings with and without a guide.
        notes: The list that gets a line for each guide that could not be scored.
    """
    kept: dict[Job, KeptGuide] = {}
    for job in jobs:
        guide = KeptGuide(job, output)
        try:
            if not guide.is_current():
                if guide_of_checkpoint(job.folder / CHECKPOINT) is None:
                    continue
                log(f"the guide alone: {job.label}")
                guide.make()
            kept[job] = guide
        except Exception as error:  # any error of a library or device: the report comes without this guide
            reason = str(error) if isinstance(error, GuidinoError) else f"{type(error).__name__}: {error}"
            notes.append(f"The guide of {job.label} cannot be scored: {reason}")
    return kept


def case_rows(entries: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each case and class: case, class, segmentation_dice and guide_dice (at threshold ½).

    Args:
        entries: One training's entries, as KeptGuide has them.
    """
    half = [_histogram(entry).dice()[HALF] for entry in entries]
    return pd.DataFrame(entries)[["case", "class", "segmentation_dice"]].assign(guide_dice=half)


def training_rows(entries: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each class of a training.

    A row holds the mean Dice of segmentation and guide over the cases, the threshold with the best mean Dice of the
    guide and this Dice, and the guide's calibration error over all pixels.
    """
    names = dict.fromkeys(entry["class"] for entry in entries)
    return pd.DataFrame(
        [_training_row(name, [entry for entry in entries if entry["class"] == name]) for name in names],
        columns=["class", "cases", *BOTH, "best_threshold", "best_dice", "calibration_error"],
    )


def _training_row(name: str, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    histograms = [_histogram(entry) for entry in entries]
    pooled = sum(histograms[1:], histograms[0])
    row = {"class": name, "cases": 0, "calibration_error": pooled.calibration_error()}
    guide = np.array([histogram.dice() for histogram in histograms])  # (cases, thresholds)
    segmentation = np.array([entry["segmentation_dice"] for entry in entries], float)
    counted = ~(np.isnan(guide[:, HALF]) & np.isnan(segmentation))
    if not counted.any():
        return row
    means = np.nan_to_num(guide[counted], nan=1.0).mean(0)  # an empty guide of an empty reference is correct
    best = int(means.argmax())
    return row | {
        "cases": int(counted.sum()),
        "segmentation_dice": np.nan_to_num(segmentation[counted], nan=1.0).mean(),
        "guide_dice": means[HALF],
        "best_threshold": THRESHOLDS[best],
        "best_dice": means[best],
    }


def _histogram(entry: dict[str, Any]) -> Histogram:
    return Histogram(*(np.array(entry[field]) for field in Histogram._fields))


def guides_and_segmentations(cases: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each method and class, and for the mean of several classes.

    A row holds the Dice of segmentation and guide and their difference (above_guide), each with its 95 % interval
    (…_low, …_high).

    Args:
        cases: `case_rows` of all trainings to compare, with the columns method and run.
    """
    place = [cases["case"], cases["class"]]
    counted = cases[cases[BOTH].notna().any(axis=1).groupby(place).transform("any")].fillna(dict.fromkeys(BOTH, 1.0))
    counted = counted.assign(above_guide=counted["segmentation_dice"] - counted["guide_dice"])
    tables = [_with_intervals(table).assign(method=name) for name, table in counted.groupby("method", sort=False)]
    return pd.concat(tables, ignore_index=True)


def _with_intervals(counted: pd.DataFrame) -> pd.DataFrame:
    means = counted.groupby("class", sort=False)[GUIDE_COLUMNS].mean()
    if len(means) > 1:
        means.loc[FOREGROUND] = means.mean()
    limits = mean_intervals(counted, GUIDE_COLUMNS).pivot(index="class", columns="metric", values=["low", "high"])
    limits.columns = [f"{metric}_{limit}" for limit, metric in limits.columns]
    return means.join(limits).reset_index()
