"""Score predictions against references, from Python or for `guidino evaluate`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json
from nnunetv2_guidino.nnunet.descriptions import read_dataset_json
from nnunetv2_guidino.tools.evaluation.cases import (
    PredictedCase,
    file_names,
    guess_ending,
    pair_folders,
    pair_folds,
    with_images,
)
from nnunetv2_guidino.tools.evaluation.evaluation_report import write_report
from nnunetv2_guidino.tools.evaluation.metrics import Empty
from nnunetv2_guidino.tools.evaluation.reading import PairReader, find_reader
from nnunetv2_guidino.tools.evaluation.scored_labels import LabelSet, find_dataset_json, label_set, translation
from nnunetv2_guidino.tools.evaluation.scoring import Scorer, score_cases
from nnunetv2_guidino.tools.evaluation.summary import case_table, summarize


@dataclass(frozen=True)
class Evaluation:
    """The scores of one method."""

    summary: dict[str, Any]  # summary.json
    table: pd.DataFrame  # cases.csv with the fold: one row for each case and class
    labels_from: str  # the source of the classes

    @property
    def left_out(self) -> dict[str, int]:
        """The number of cases in which both masks of a class are empty, for each class that has such cases.

        The class's means leave these cases out.
        """
        counts = {name: self.summary["empty_cases"][key]["both"] for key, name in self.summary["classes"].items()}
        return {name: count for name, count in counts.items() if count}


@dataclass(frozen=True)
class Scoring:
    """Settings of the scores.

    Args:
        nsd_tolerance: The tolerance of NSD in the unit of the spacing; None is one pixel, each case's smallest spacing.
        empty: If either the reference or the prediction is empty, "penalize" gives undefined metrics their worst value
            (HD95: the image's diagonal) and "ignore" leaves them out of the means.
        predicted_labels: The predictions' label values if they differ from the references', such as 255 for 1.
        processes: The number of processes. The default is nnU-Net's number, or fewer if there are few cores or little
            memory.
    """

    nsd_tolerance: float | None = None
    empty: Empty = "penalize"
    predicted_labels: LabelSet | None = None
    processes: int | None = None

    def __post_init__(self) -> None:
        tolerance = self.nsd_tolerance
        if tolerance is not None and not (math.isfinite(tolerance) and tolerance >= 0):
            raise GuidinoError(f"--nsd-tolerance {tolerance}: expected a number, 0 or more")
        if self.empty not in ("penalize", "ignore"):
            raise GuidinoError(f"--empty {self.empty}: expected penalize or ignore")
        if self.processes is not None and self.processes < 1:
            raise GuidinoError(f"-np {self.processes}: expected 1 or more")


def evaluate(
    references: Path,
    predictions: Path,
    output: Path | None = None,
    *,
    images: Path | None = None,
    labels: LabelSet | None = None,
    scoring: Scoring | None = None,
) -> Evaluation:
    """Score a folder of predictions, one for each reference: Dice, IoU, HD95, NSD, precision and recall.

    Args:
        output: The folder for summary.json, cases.csv, report.md and report.html; None writes nothing.
        images: A folder of CASE_0000.*; the report draws the worst and best cases on these images.
        labels: The classes; the default is the classes of the dataset.json in or above the folders.
        scoring: The tolerance, the treatment of empty masks, the predictions' own labels, the number of processes.

    Raises:
        GuidinoError: If a file is missing, superfluous or damaged, holds other values than the labels, or has another
            place than its reference. Nothing is written then.
    """
    references, predictions = Path(references), Path(predictions)
    for folder in (references, predictions):
        file_names(folder)  # the error names the folder and not a missing dataset.json
    if labels:
        dataset_json: dict[str, Any] = {"file_ending": guess_ending(references)}
        source = "the labels given"
    else:
        dataset_json, file = find_dataset_json(references, predictions)
        labels, source = label_set(dataset_json.get("labels"), str(file)), str(file)
    cases = pair_folders(references, predictions, dataset_json["file_ending"])
    return _evaluate(cases, labels, dataset_json, output, images, scoring or Scoring(), source)


def evaluate_model(
    model_folder: Path,
    output: Path | None = None,
    *,
    folds: Sequence[str] | None = None,
    references: Path | None = None,
    images: Path | None = None,
    labels: LabelSet | None = None,
    scoring: Scoring | None = None,
) -> Evaluation:
    """Score the validation that nnU-Net ran after training, all folds together.

    Args:
        model_folder: …/DatasetXXX/Trainer__Plans__configuration
        folds: The default is all numbered folds.
        references: The default is nnU-Net's nnUNet_preprocessed/DatasetXXX/gt_segmentations.
        labels: The classes; the default is the classes of the model's dataset.json.
        output, images, scoring: As for `evaluate`.

    Raises:
        GuidinoError: As `evaluate` does, and if the validation of a fold is missing or incomplete.
    """
    model_folder = Path(model_folder)
    dataset_json = read_dataset_json(model_folder / "dataset.json", "file_ending")
    plans = read_json(model_folder / "plans.json", dict)
    name = plans.get("dataset_name")
    if not isinstance(name, str):
        raise GuidinoError(f"{model_folder / 'plans.json'}: dataset_name is {name!r}; expected the data set's name")
    source = "the labels given" if labels else str(model_folder / "dataset.json")
    labels = labels or label_set(dataset_json.get("labels"), source)
    cases = pair_folds(model_folder, folds, references, name, dataset_json["file_ending"])
    return _evaluate(cases, labels, dataset_json, output, images, scoring or Scoring(), source)


def _evaluate(
    cases: list[PredictedCase],
    labels: LabelSet,
    dataset_json: dict[str, Any],
    output: Path | None,
    images: Path | None,
    scoring: Scoring,
    source: str,
) -> Evaluation:
    if scoring.predicted_labels:
        translation(scoring.predicted_labels, labels)  # the error comes before the first file is read
    if images:
        cases = with_images(cases, Path(images), dataset_json["file_ending"])
    pairs = PairReader(find_reader(dataset_json, cases[0].reference), labels, scoring.predicted_labels)
    results = score_cases(Scorer(pairs, scoring.empty, scoring.nsd_tolerance), cases, scoring.processes)
    tolerance = "1 pixel" if scoring.nsd_tolerance is None else scoring.nsd_tolerance
    summary = summarize(results, labels, {"empty": scoring.empty, "nsd_tolerance": tolerance})
    if output:
        write_report(Path(output), summary, cases, pairs)
    return Evaluation(summary, case_table(summary), source)
