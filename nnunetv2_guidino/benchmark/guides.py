"""The guide of each finished training by itself, scored once and kept in the output folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from nnunetv2_guidino.benchmark.job import Job
from nnunetv2_guidino.benchmark.local import Say
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import filled_folder, read_json
from nnunetv2_guidino.inspection.calibration import BINS
from nnunetv2_guidino.inspection.guide_alone import CHECKPOINT, guides_alone
from nnunetv2_guidino.nnunet.folders import folder_of
from nnunetv2_guidino.training.model_folder import guide_of_checkpoint


class KeptGuide:
    """What is known of the guide of one training, in a folder of its own.

    Args:
        job: The training.
        output: The benchmark's folder.
    """

    def __init__(self, job: Job, output: Path):
        self.job = job
        self.folder = output / "guides" / job.folder.relative_to(job.results)  # as the training itself

    def is_current(self) -> bool:
        """Whether it was made from the checkpoint that is there now."""
        try:
            return read_json(self.folder / "scores.json", dict).get("made_from") == self._made_from()
        except GuidinoError:
            return False

    def make(self) -> None:
        """Run the guide over the validation cases, on the training's device.

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
        """One for each case and class: case, class, segmentation_dice and what a Histogram holds."""
        return [dict(entry) for entry in read_json(self.folder / "scores.json", dict)["cases"]]

    def picture(self, case: str) -> npt.NDArray[np.uint8] | None:
        """The guide of a case as `GuideOfCase` has it; None where there is none, or none that can be read."""
        try:
            with np.load(self.folder / "pictures" / f"{case}.npz", allow_pickle=False) as content:
                return np.asarray(content["guide"])
        except (OSError, ValueError, KeyError, BadZipFile):
            return None

    def _made_from(self) -> list[int]:
        """Size and time of the checkpoint, and how its guide is counted."""
        about = (self.job.folder / CHECKPOINT).stat()
        return [about.st_size, about.st_mtime_ns, BINS]


def keep_guides(jobs: Sequence[Job], output: Path, say: Say, notes: list[str]) -> dict[Job, KeptGuide]:
    """The guides of finished trainings; those that are not there yet, or of another checkpoint, are made.

    Args:
        jobs: Finished ones, with and without a guide.
        notes: Gets a line for each that could not be made; the others are all the same.
    """
    kept: dict[Job, KeptGuide] = {}
    for job in jobs:
        guide = KeptGuide(job, output)
        try:
            if not guide.is_current():
                if guide_of_checkpoint(job.folder / CHECKPOINT) is None:
                    continue
                say(f"the guide alone: {job.label}")
                guide.make()
            kept[job] = guide
        except Exception as error:  # whatever a library or a device raises: the report is worth having without it
            reason = str(error) if isinstance(error, GuidinoError) else f"{type(error).__name__}: {error}"
            notes.append(f"The guide of {job.label} is not scored: {reason}")
    return kept
