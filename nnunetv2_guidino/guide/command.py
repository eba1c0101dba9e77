"""Show what the guide of a trained model sees. Every image goes through nnU-Net's own preprocessing, sliding window and
mirroring. Writes the guide of each case in the images' format and size (NIfTI and TIFF: 0…1, PNG: 0…255), a panel of
image, guide and prediction for each case, and contact sheets; with -gt also the truth, and the guide's Dice and AUC.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.evaluation.cases import case_names, listing, read_labels
from nnunetv2_guidino.evaluation.labels import LabelSet, label_set
from nnunetv2_guidino.evaluation.report import markdown_table, staged
from nnunetv2_guidino.guide.files import image_files, save_guide
from nnunetv2_guidino.guide.pictures import Case, draw_contact_sheets, draw_panel
from nnunetv2_guidino.guide.predictor import GuidePredictor

Array = npt.NDArray[Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m", type=Path, metavar="MODEL_FOLDER", required=True, help="…/DatasetXXX/Trainer__Plans__configuration"
    )
    parser.add_argument("-i", type=Path, metavar="IMAGES", required=True, help="images CASE_0000.*, as for prediction")
    parser.add_argument("-o", type=Path, metavar="OUT", required=True, help="output")
    parser.add_argument("-gt", type=Path, metavar="DIR", help="references, one for each image")
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


def run(args: argparse.Namespace) -> None:
    _check_device(args.device)
    if not 0 < args.step_size <= 1:
        raise GuidinoError(f"-step_size {args.step_size}: expected more than 0 and at most 1 (a whole patch)")
    predictor = GuidePredictor(args.m, args.f, args.chk, args.device, args.step_size, not args.disable_tta)
    ending = predictor.dataset_json["file_ending"]
    cases = image_files(args.i, ending)
    if args.gt:
        _check_references(args.gt, set(cases), ending)
    labels = label_set(predictor.dataset_json["labels"], f"{args.m}/dataset.json")
    rows = []
    try:
        with staged(args.o) as folder:
            for name in ("guides", "panels"):  # not beside the images or predictions, which have the same names
                (folder / name).mkdir()
            for name, files in tqdm(cases.items(), desc="guide", unit="case"):
                reference = args.gt / f"{name}{ending}" if args.gt else None
                rows.append(_one_case(predictor, labels, name, files, reference, folder))
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


def _check_references(folder: Path, cases: set[str], ending: str) -> None:
    """References of other images may lie there too."""
    if missing := cases - set(case_names(folder, ending)):
        raise GuidinoError(f"{folder} has no reference CASE{ending} for {listing(missing)}")


def _one_case(
    predictor: GuidePredictor, labels: LabelSet, name: str, files: list[Path], reference: Path | None, folder: Path
) -> dict[str, Any]:
    """Write guide and panel; the case's row of guide.csv."""
    guided = predictor.predict(files)
    image, _ = predictor.reader().read_images([str(files[0])])
    row: dict[str, Any] = {"case": name}
    title, truth = name, None
    if reference:
        truth, valid = _read_truth(reference, predictor.reader, labels, guided.guide.shape)
        row |= guide_scores(guided.guide[valid], truth[valid])
        title = f"{name}: guide's Dice {row['dice']:.3f}, AUC {row['auc']:.3f}"
    spacing = guided.properties["spacing"]
    case = Case(title, image, guided.guide, guided.segmentation > 0, truth, spacing)
    save_guide(guided.guide, folder / "guides" / f"{name}{predictor.dataset_json['file_ending']}", guided.properties)
    draw_panel(case, folder / "panels" / f"{name}.png")
    return row


def _read_truth(file: Path, reader: type, labels: LabelSet, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Foreground and what is not to be ignored, both (D, H, W) of bool."""
    reference, _ = read_labels(file, reader, labels.values, labels.ignore)
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
