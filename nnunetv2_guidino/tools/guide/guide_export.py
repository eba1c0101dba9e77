"""Write the guide of a trained model on images: as files, as pictures, and scored."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from nnunetv2_guidino.bounds import STEP_SIZE
from nnunetv2_guidino.devices import usable_device
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import filled_folder
from nnunetv2_guidino.tools.drawing.pages import csv, markdown_table
from nnunetv2_guidino.tools.evaluation.cases import case_names, listing
from nnunetv2_guidino.tools.evaluation.reading import read_labels
from nnunetv2_guidino.tools.evaluation.scored_labels import LabelSet, label_set
from nnunetv2_guidino.tools.guide.guide_files import image_files, save_guide
from nnunetv2_guidino.tools.guide.guide_scores import guide_scores
from nnunetv2_guidino.tools.guide.panels import Pictured, draw_contact_sheets, draw_panel
from nnunetv2_guidino.tools.guide.predictor import GuidePredictor

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Shown:
    """The output of `guide`.

    Args:
        folder: The folder of guides/, panels/, the contact sheets, and guide.csv if there were references.
        table: One row for each case: its name as case, and dice and auc if there were references.
        sheets: The names of the contact sheets.
    """

    folder: Path
    table: pd.DataFrame
    sheets: list[str]


class Files(NamedTuple):
    """The files of one case."""

    name: str
    images: list[Path]  # one for each channel
    reference: Path | None
    previous: Path | None  # the prediction of a cascade's previous stage


def guide(
    model: Path,
    images: Path,
    output: Path,
    references: Path | None = None,
    previous_predictions: Path | None = None,
    folds: Sequence[str] | None = None,
    checkpoint: str = "checkpoint_final.pth",
    device: str = "cuda",
    step_size: float = 0.5,
    mirroring: bool = True,
) -> Shown:
    """Write the guide of a trained model for each image, a panel of it, and contact sheets.

    Args:
        model: …/DatasetXXX/Trainer__Plans__configuration.
        images: Folder with CASE_0000.*, as for prediction.
        output: Folder to write into; files of the same names are replaced when all are complete.
        references: Folder with CASE.*, one for each image: the guides are scored.
        previous_predictions: Folder with the predictions of a cascade's previous stage.
        folds: The folds to average; the default is all numbered folds.
        checkpoint: The name of the checkpoint's file in each fold.
        device: "cpu", "cuda" or "mps".
        step_size: The sliding window's step as a share of the patch.
        mirroring: Average over mirrored images, as nnU-Net does.

    Raises:
        GuidinoError: If a file is missing or damaged; the error names it, and nothing is written.
    """
    usable_device(device)  # a wrong option must not cost the time to load a model
    STEP_SIZE.check("-step_size", step_size)
    predictor = GuidePredictor(model, folds, checkpoint, device, step_size, mirroring)
    cases = _cases_of(predictor, images, references, previous_predictions)
    labels = label_set(predictor.dataset_json["labels"], f"{model}/dataset.json")
    with filled_folder(output) as folder:
        for name in ("guides", "panels"):  # not beside the images or predictions, which have the same names
            (folder / name).mkdir()
        with tqdm(cases, desc="guide", unit="case", disable=None) as bar:  # an error comes after the closed bar
            rows = [_one_case(predictor, labels, files, folder) for files in bar]
        table = pd.DataFrame(rows)
        if references:
            (folder / "guide.csv").write_text(csv(table), encoding="utf-8")
            table = table.sort_values("dice", na_position="last")  # the worst guides come first
        sheets = draw_contact_sheets([folder / "panels" / f"{name}.png" for name in table["case"]], folder)
    return Shown(output, table, sheets)


def _cases_of(
    predictor: GuidePredictor, folder: Path, references: Path | None, previous_predictions: Path | None
) -> list[Files]:
    ending = predictor.dataset_json["file_ending"]
    _check_stage(predictor.model_folder, predictor.previous_stage, previous_predictions)
    images = image_files(folder, ending)
    reference = _of_cases(references, "reference", images, ending)
    previous = _of_cases(previous_predictions, "prediction", images, ending)
    return [Files(name, files, reference[name], previous[name]) for name, files in images.items()]


def _check_stage(model: Path, previous_stage: str | None, predictions: Path | None) -> None:
    if previous_stage and not predictions:
        raise GuidinoError(
            f"{model} is a cascade's later stage: predict the images with nnUNetv2_predict -c {previous_stage} and say "
            "with -prev_stage_predictions where the predictions are"
        )
    if predictions and not previous_stage:
        raise GuidinoError(f"-prev_stage_predictions: {model} has no previous stage")


def _of_cases(folder: Path | None, what: str, cases: Collection[str], ending: str) -> dict[str, Path | None]:
    """Return a file for each case, or None without a folder. The folder may hold files of other cases, too."""
    if folder is None:
        return dict.fromkeys(cases)
    if missing := set(cases) - set(case_names(folder, ending)):
        raise GuidinoError(f"{folder} has no {what} CASE{ending} for {listing(missing)}")
    return {name: folder / f"{name}{ending}" for name in cases}


def _one_case(predictor: GuidePredictor, labels: LabelSet, files: Files, folder: Path) -> dict[str, Any]:
    """Write guide and panel; return the case's row of guide.csv."""
    name = files.name
    guided = predictor.predict(files.images, files.previous)
    image, _ = predictor.reader().read_images([str(files.images[0])])
    row: dict[str, Any] = {"case": name}
    title, truth = name, None
    if files.reference:
        truth, valid = _read_truth(files.reference, predictor.reader, labels, guided.guide.shape)
        row |= guide_scores(guided.guide[valid], truth[valid])
        title = f"{name}: guide's Dice {row['dice']:.3f}, AUC {row['auc']:.3f}"
    spacing = guided.properties["spacing"]
    case = Pictured(title, image, guided.guide, guided.segmentation > 0, truth, spacing)
    save_guide(guided.guide, folder / "guides" / f"{name}{predictor.dataset_json['file_ending']}", guided.properties)
    draw_panel(case, folder / "panels" / f"{name}.png")
    return row


def _read_truth(file: Path, reader: type, labels: LabelSet, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return the foreground and the valid pixels, both (D, H, W) of bool."""
    reference, *_ = read_labels(file, reader, labels, labels.ignore)
    reference = reference.reshape((1, *reference.shape) if reference.ndim == 2 else reference.shape)
    if reference.shape != shape:
        raise GuidinoError(f"{file} has size {reference.shape}, its image has {shape}")
    ignored = np.zeros_like(reference, bool) if labels.ignore is None else reference == labels.ignore
    return (reference > 0) & ~ignored, ~ignored


def summary(table: pd.DataFrame) -> str:
    """Return mean ± standard deviation, median, extremes and number of cases of the guide's Dice and AUC, as Markdown.

    Args:
        table: As in `Shown`.
    """
    rows = []
    for name, column in (("Dice at 0.5", "dice"), ("AUC", "auc")):
        values = table[column].dropna()
        numbers = [f"{value:.3f}" for value in (values.median(), values.min(), values.max())]
        rows.append([name, f"{values.mean():.3f} ± {values.std():.3f}", *numbers, f"{len(values)} of {len(table)}"])
    return markdown_table(pd.DataFrame(rows, columns=["guide", "mean ± sd", "median", "lowest", "highest", "cases"]))
