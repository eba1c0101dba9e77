"""Show what the guide of a trained model sees. Every image goes through nnU-Net's own preprocessing, sliding window and
mirroring. Writes the guide of each case in the images' format and size (NIfTI and TIFF: 0…1, PNG: 0…255), a panel of
image, guide and prediction for each case, and contact sheets; with -gt also the truth, and the guide's Dice and AUC.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.evaluation.cases import case_names, listing
from nnunetv2_guidino.evaluation.labels import LabelSet, label_set
from nnunetv2_guidino.evaluation.reading import read_labels
from nnunetv2_guidino.evaluation.report import markdown_table
from nnunetv2_guidino.files import filled_folder
from nnunetv2_guidino.inspection.files import image_files, save_guide
from nnunetv2_guidino.inspection.pictures import Case, draw_contact_sheets, draw_panel
from nnunetv2_guidino.inspection.predictor import GuidePredictor

Array = npt.NDArray[Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m", type=Path, metavar="MODEL_FOLDER", required=True, help="…/DatasetXXX/Trainer__Plans__configuration"
    )
    parser.add_argument("-i", type=Path, metavar="IMAGES", required=True, help="images CASE_0000.*, as for prediction")
    parser.add_argument("-o", type=Path, metavar="OUT", required=True, help="output")
    parser.add_argument("-gt", type=Path, metavar="DIR", help="references, one for each image")
    parser.add_argument(
        "-prev_stage_predictions",
        type=Path,
        metavar="DIR",
        help="predictions of a cascade's previous stage, one for each image",
    )
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds to average. Default: all numbered ones")
    parser.add_argument("-chk", default="checkpoint_final.pth", metavar="FILE", help="default: %(default)s")
    parser.add_argument("-device", choices=("cuda", "cpu", "mps"), default="cuda", help="default: %(default)s")
    parser.add_argument(
        "-step_size",
        type=float,
        default=0.5,
        metavar="X",
        help="nnU-Net's, of the sliding window. Default: %(default)s",
    )
    parser.add_argument("--disable_tta", action="store_true", help="nnU-Net's: no mirroring")


class Files(NamedTuple):
    """Of one case."""

    name: str
    images: list[Path]  # one for each channel
    reference: Path | None
    previous: Path | None  # the prediction of a cascade's previous stage


def run(args: argparse.Namespace) -> None:
    _check_device(args.device)
    if not 0 < args.step_size <= 1:
        raise GuidinoError(f"-step_size {args.step_size}: expected more than 0 and at most 1 (a whole patch)")
    predictor = GuidePredictor(args.m, args.f, args.chk, args.device, args.step_size, not args.disable_tta)
    ending = predictor.dataset_json["file_ending"]
    _check_stage(args.m, predictor.previous_stage, args.prev_stage_predictions)
    images = image_files(args.i, ending)
    references = _of_cases(args.gt, "reference", images, ending)
    previous = _of_cases(args.prev_stage_predictions, "prediction", images, ending)
    cases = [Files(name, files, references[name], previous[name]) for name, files in images.items()]
    labels = label_set(predictor.dataset_json["labels"], f"{args.m}/dataset.json")
    rows = []
    try:
        with filled_folder(args.o) as folder:
            for name in ("guides", "panels"):  # not beside the images or predictions, which have the same names
                (folder / name).mkdir()
            for files in tqdm(cases, desc="guide", unit="case"):
                rows.append(_one_case(predictor, labels, files, folder))
            table = pd.DataFrame(rows)
            if args.gt:
                table.to_csv(folder / "guide.csv", index=False)
                table = table.sort_values("dice", na_position="last")  # the worst guides come first
            sheets = draw_contact_sheets([folder / "panels" / f"{name}.png" for name in table["case"]], folder)
    except OSError as error:
        raise GuidinoError(f"{args.o} cannot be written: {error}") from error
    if args.gt:
        print(summary(table))
    print(f"{args.o}: guides, panels, {', '.join(sheets)}{', guide.csv' if args.gt else ''}")


def _check_device(device: str) -> None:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not available[device]:
        raise GuidinoError(f"-device {device}: there is none here. Say -device cpu")


def _check_stage(model: Path, previous_stage: str | None, predictions: Path | None) -> None:
    if previous_stage and not predictions:
        raise GuidinoError(
            f"{model} is a cascade's later stage: predict the images with nnUNetv2_predict -c {previous_stage} and say "
            "with -prev_stage_predictions where the predictions are"
        )
    if predictions and not previous_stage:
        raise GuidinoError(f"-prev_stage_predictions: {model} has no previous stage")


def _of_cases(folder: Path | None, what: str, cases: Collection[str], ending: str) -> dict[str, Path | None]:
    """A file for each case, or None where no folder is given. Those of other cases may lie there too."""
    if folder is None:
        return dict.fromkeys(cases)
    if missing := set(cases) - set(case_names(folder, ending)):
        raise GuidinoError(f"{folder} has no {what} CASE{ending} for {listing(missing)}")
    return {name: folder / f"{name}{ending}" for name in cases}


def _one_case(predictor: GuidePredictor, labels: LabelSet, files: Files, folder: Path) -> dict[str, Any]:
    """Write guide and panel; the case's row of guide.csv."""
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
    case = Case(title, image, guided.guide, guided.segmentation > 0, truth, spacing)
    save_guide(guided.guide, folder / "guides" / f"{name}{predictor.dataset_json['file_ending']}", guided.properties)
    draw_panel(case, folder / "panels" / f"{name}.png")
    return row


def _read_truth(file: Path, reader: type, labels: LabelSet, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Foreground and what is not to be ignored, both (D, H, W) of bool."""
    reference, *_ = read_labels(file, reader, labels.values, labels.ignore)
    reference = reference.reshape((1, *reference.shape) if reference.ndim == 2 else reference.shape)
    if reference.shape != shape:
        raise GuidinoError(f"{file} has size {reference.shape}, its image has {shape}")
    ignored = np.zeros_like(reference, bool) if labels.ignore is None else reference == labels.ignore
    return (reference > 0) & ~ignored, ~ignored


def guide_scores(guide: Array, truth: Array) -> dict[str, float]:
    """Dice of the guide at threshold 0.5, and the area under its ROC curve over all pixels.

    Dice is nan where both masks are empty, the AUC where all pixels are of one kind.

    Shape:
        guide (n,) in [0, 1], truth (n,) of bool
    """
    mask = guide > 0.5
    total = int(mask.sum()) + int(truth.sum())
    dice = 2 * int((mask & truth).sum()) / total if total else float("nan")
    auc = float(roc_auc_score(truth, guide)) if truth.any() and not truth.all() else float("nan")
    return {"dice": dice, "auc": auc}


def summary(table: pd.DataFrame) -> str:
    """Mean ± standard deviation, median, extremes and number of cases of the guide's Dice and AUC, as Markdown."""
    rows = [["guide", "mean ± sd", "median", "lowest", "highest", "cases"]]
    for name, column in (("Dice at 0.5", "dice"), ("AUC", "auc")):
        values = table[column].dropna()
        numbers = [f"{value:.3f}" for value in (values.median(), values.min(), values.max())]
        rows.append([name, f"{values.mean():.3f} ± {values.std():.3f}", *numbers, f"{len(values)} of {len(table)}"])
    return markdown_table(rows)
