"""Small segmentations written to files, and scores in the form of evaluate's."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from skimage import io


def rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows of cases.csv."""
    with (folder / "cases.csv").open() as file:
        return list(csv.DictReader(file))


def write_pngs(folder: Path, masks: Mapping[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        io.imsave(folder / f"{name}.png", mask.astype(np.uint8), check_contrast=False)
    return folder


def write_nifti(file: Path, array: np.ndarray, spacing: tuple[float, ...] = (1, 1, 1)) -> Path:
    """Write an array with its spacing; both have the axes (z, y, x)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    sitk.WriteImage(image, str(file))
    return file


def square(row: int, column: int, side: int = 8, shape: tuple[int, int] = (40, 50)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[row : row + side, column : column + side] = 1
    return mask


NAN = float("nan")
CASES = [f"case_{i}" for i in range(6)]
RIGHT_ON_EMPTY = {
    "Dice": NAN,
    "IoU": NAN,
    "HD95": NAN,
    "NSD": NAN,
    "Precision": NAN,
    "Recall": NAN,
    "n_ref": 0,
    "n_pred": 0,
}
FALSE_ALARM = {"Dice": 0, "IoU": 0, "HD95": 50, "NSD": 0, "Precision": 0, "Recall": 0, "n_ref": 0, "n_pred": 64}


def scores_of(dice: float, n_ref: int = 64) -> dict[str, float]:
    """Return a case's metrics for the given Dice."""
    metrics = {"Dice": dice, "IoU": dice / (2 - dice), "HD95": 10 * (1 - dice), "NSD": dice}
    return metrics | {"Precision": dice, "Recall": dice, "n_ref": n_ref, "n_pred": 64}


def write_summary(
    folder: Path,
    dice: dict[str, float | dict[str, float]],
    *,
    n_ref: int = 64,
    folds: str = "",
    empty: str = "penalize",
    classes: str = "1",
) -> Path:
    """Write a summary.json with the given Dice (or all metrics) for each case, the same in each class."""
    metrics = {name: scores_of(d, n_ref) if isinstance(d, float) else d for name, d in dice.items()}
    entries = [{"case": name, "metrics": dict.fromkeys(classes, m)} for name, m in metrics.items()]
    for entry, fold in zip(entries, folds, strict=False):
        entry["fold"] = fold
    folder.mkdir(parents=True, exist_ok=True)
    summary = {
        "metric_per_case": entries,
        "classes": {key: f"class {key}" for key in classes},
        "settings": {"empty": empty, "nsd_tolerance": "1 pixel"},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def scores(values: list[float]) -> dict[str, float]:
    """Return the Dice of each case."""
    return dict(zip(CASES, values, strict=True))


def value(table, method: str, column: str, metric: str = "dice", group: str = "foreground mean") -> float:
    """Return a column's value in one method's row of a comparison."""
    chosen = (table["method"] == method) & (table["metric"] == metric) & (table["class"] == group)
    return table.loc[chosen, column].item()
