"""Predictions back from nnU-Net's labels to masks of 0 and 255, beside pictures of their outlines for people."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from nnunetv2_guidino.conversion.image_files import decode
from nnunetv2_guidino.conversion.labels import BACKGROUND, IGNORE
from nnunetv2_guidino.conversion.mask_levels import label_values
from nnunetv2_guidino.conversion.photographs import ENDINGS
from nnunetv2_guidino.conversion.sources import SourceFile
from nnunetv2_guidino.conversion.workers import map_cases
from nnunetv2_guidino.conversion.writing import no_formula, save_new
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json, read_text, whole_folder

COLOURS = ("yellow", "cyan", "magenta", "lime", "orange", "deepskyblue")  # of the labels' outlines, in turn
Labels = Mapping[str, tuple[int, ...]]  # name: the values that belong to it; several for a region
Size = tuple[int, int]  # height, width


@dataclass
class PredictionsReport:
    """What became of the predictions."""

    folder: Path
    cases: int = 0
    notes: list[str] = field(default_factory=list)


def convert_predictions(predictions: Path, images: Path, output: Path, processes: int = 1) -> PredictionsReport:
    """Write masks/NAME.png with 0 and 255 (NAME_LABEL.png, where there are several labels) and overlays/NAME.png.

    Masks get the size of the original images, as the mapping.csv of `convert_images` says it.

    Args:
        predictions: nnU-Net's folder of predictions, with the dataset.json that it writes there.
        images: The images that were predicted, NAME_0000.png.
        output: A folder that does not exist yet.
        processes: How many work; more than one need a script's `if __name__ == "__main__"`.

    Raises:
        GuidinoError: If a prediction cannot be read, or lacks its image; nothing was written then.
    """
    description = read_json(predictions / "dataset.json", dict)
    ending = description.get("file_ending")
    if ending not in ENDINGS:
        raise GuidinoError(
            f"{predictions / 'dataset.json'}: the folder holds {ending} files; expected pictures: {', '.join(ENDINGS)}"
        )
    labels = _labels(description.get("labels"), predictions / "dataset.json")
    names = sorted(file.name.removesuffix(ending) for file in predictions.glob(f"[!.]*{ending}"))
    if not names:
        raise GuidinoError(f"{predictions}: holds no predictions *{ending}")
    sizes = _original_sizes(images / "mapping.csv")
    with whole_folder(output) as folder:
        for name in ("masks", "overlays"):
            (folder / name).mkdir()
        write = partial(_write, predictions=predictions, images=images, ending=ending, folder=folder, labels=labels)
        cases = [(name, sizes.get(no_formula(name))) for name in names]
        if problems := [problem for problem in map_cases(write, cases, processes, "writing") if problem]:
            raise GuidinoError("\n".join([*problems, "Nothing was written."]))
    report = PredictionsReport(output, len(names))
    missing = sorted({file.name.removesuffix(f"_0000{ending}") for file in images.glob(f"*_0000{ending}")} - {*names})
    if missing:
        report.notes.append(f"{len(missing)} images have no prediction, {missing[0]} to begin with")
    return report


def _labels(labels: Any, file: Path) -> Labels:
    """The foreground labels and regions of a dataset.json."""
    found: dict[str, tuple[int, ...]] = {}
    for name, values in labels.items() if isinstance(labels, dict) else ():
        values = values if isinstance(values, list) else [values]
        if not all(type(value) is int for value in values):
            raise GuidinoError(f"{file}: the label {name!r} is {values!r}; expected whole numbers")
        if name not in (BACKGROUND, IGNORE):
            found[name] = tuple(values)
    if not found:
        raise GuidinoError(f"{file}: expected the key labels with a label besides {BACKGROUND}")
    if len({_file_name(name) for name in found}) < len(found):
        raise GuidinoError(f"{file}: two of its labels would be one in the names of files; rename them")
    return found


def _file_name(label: str) -> str:
    return re.sub(r"\W+", "_", label)


def _original_sizes(mapping: Path) -> dict[str, Size]:
    """The sizes by case; none where there is no table, as for images that were never resized."""
    if not mapping.exists():
        return {}
    try:
        return {
            row["case"]: (int(row["original_height"]), int(row["original_width"]))
            for row in csv.DictReader(read_text(mapping).splitlines())
            if row.get("original_height")
        }
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise GuidinoError(f"{mapping} cannot be read as the table of `guidino convert`: {error!r}") from error


def _write(
    case: tuple[str, Size | None], predictions: Path, images: Path, ending: str, folder: Path, labels: Labels
) -> str | None:
    """Write the masks and the overlay of a case; returns what is wrong with it."""
    name, size = case
    file, of_image = SourceFile(predictions, f"{name}{ending}"), SourceFile(images, f"{name}_0000{ending}")
    reading = file
    try:
        values = label_values(decode(file, deep=True).stored, coloured=False)
        reading = of_image
        image = decode(of_image).upright.convert("RGB")
    except Exception as error:  # each of Pillow's decoders has its own way to fail on a damaged file
        return f"{reading}: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}"
    if image.size != values.shape[::-1]:
        return f"{file}: has {values.shape[::-1]} pixels, but its image {image.size} (width, height)"
    for position, (label, of_label) in enumerate(labels.items()):
        mask = Image.fromarray(np.where(np.isin(values, of_label), 255, 0).astype(np.uint8))
        _draw_outline(image, mask, COLOURS[position % len(COLOURS)])
        of_name = name if len(labels) == 1 else f"{name}_{_file_name(label)}"
        height, width = size or values.shape
        save_new(mask.resize((width, height), Image.Resampling.NEAREST), folder / "masks" / f"{of_name}.png")
    save_new(image, folder / "overlays" / f"{name}.png")
    return None


def _draw_outline(image: Image.Image, mask: Image.Image, colour: str) -> None:
    """Draw the inner edge of a mask of 0 and 255 onto an image in RGB, wide enough to be seen."""
    width = 2 * max(1, min(image.size) // 250) + 1
    inside = mask.filter(ImageFilter.MinFilter(width))
    image.paste(colour, mask=ImageChops.subtract(mask, inside))
