"""Convert nnU-Net's predictions to masks of 0 and 255, and draw their outlines on the images."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_text, whole_folder
from nnunetv2_guidino.nnunet.descriptions import read_dataset_json
from nnunetv2_guidino.tools.conversion.checking import try_all
from nnunetv2_guidino.tools.conversion.image_files import decode
from nnunetv2_guidino.tools.conversion.labels import BACKGROUND, IGNORE
from nnunetv2_guidino.tools.conversion.mask_levels import label_values
from nnunetv2_guidino.tools.conversion.photographs import ENDINGS, PicturesReport, refuse
from nnunetv2_guidino.tools.conversion.sources import SourceFile
from nnunetv2_guidino.tools.conversion.writing import Size, draw_outline, no_formula, save_new

COLOURS = ("yellow", "cyan", "magenta", "lime", "orange", "deepskyblue")  # of the outlines, label by label
Labels = Mapping[str, list[int]]  # values by name; a region has several


def convert_predictions(predictions: Path, images: Path, output: Path, processes: int = 1) -> PicturesReport:
    """Write masks/NAME.png with 0 and 255 (NAME_LABEL.png if there are several labels) and overlays/NAME.png.

    Masks have the sizes of the original images, which the mapping.csv of `convert_images` lists.

    Args:
        predictions: nnU-Net's folder of predictions, with its dataset.json.
        images: The images that were predicted, NAME_0000.png.
        output: A folder that does not exist yet.
        processes: The number of processes; more than one need a script's `if __name__ == "__main__"`.

    Raises:
        GuidinoError: If a prediction cannot be read or has no image; nothing was written.
    """
    file = predictions / "dataset.json"
    description = read_dataset_json(file, "file_ending", "labels")
    ending = description["file_ending"]
    if ending not in ENDINGS:
        raise GuidinoError(f"{file}: the folder holds {ending} files; expected pictures: {', '.join(ENDINGS)}")
    labels = _foreground(description["labels"], file)
    names = sorted(file.name.removesuffix(ending) for file in predictions.glob(f"[!.]*{ending}"))
    if not names:
        raise GuidinoError(f"{predictions}: holds no predictions *{ending}")
    sizes = _original_sizes(images / "mapping.csv")
    with whole_folder(output) as folder:
        (folder / "masks").mkdir()
        (folder / "overlays").mkdir()
        write = partial(_write, predictions=predictions, images=images, ending=ending, folder=folder, labels=labels)
        cases = [(name, sizes.get(no_formula(name))) for name in names]
        refuse(try_all(write, cases, processes, "writing")[1])
    report = PicturesReport(output, len(names))
    missing = sorted({file.name.removesuffix(f"_0000{ending}") for file in images.glob(f"*_0000{ending}")} - {*names})
    if missing:
        report.notes.append(f"{len(missing)} images have no prediction; the first is {missing[0]}")
    return report


def _foreground(labels: Mapping[str, int | list[int]], file: Path) -> Labels:
    """Return the values of the foreground labels and regions of a dataset.json."""
    found = {
        name: values if isinstance(values, list) else [values]
        for name, values in labels.items()
        if name not in (BACKGROUND, IGNORE)
    }
    if not found:
        raise GuidinoError(f"{file}: expected the key labels with a label besides {BACKGROUND}")
    if len({_as_file_name(name) for name in found}) < len(found):
        raise GuidinoError(f"{file}: two labels would have the same file name; rename one")
    return found


def _as_file_name(label: str) -> str:
    return re.sub(r"\W+", "_", label)


def _original_sizes(mapping: Path) -> dict[str, Size]:
    """Return the original size of each case; empty without a table, as for images that were never resized."""
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
) -> None:
    """Write the masks and the overlay of a case. Raises ValueError if a file cannot be used."""
    name, size = case
    file = SourceFile(predictions, f"{name}{ending}")
    prediction, picture = decode(file, deep=True), decode(SourceFile(images, f"{name}_0000{ending}"))
    try:
        values = label_values(prediction.stored, coloured=False)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    image = picture.upright.convert("RGB")
    if image.size != values.shape[::-1]:
        raise ValueError(f"{file}: has {values.shape[::-1]} pixels, but its image {image.size} (width, height)")
    height, width = size or values.shape
    outline = 2 * max(1, min(image.size) // 250) + 1
    for position, (label, label_numbers) in enumerate(labels.items()):
        mask = Image.fromarray(np.where(np.isin(values, label_numbers), 255, 0).astype(np.uint8))
        draw_outline(image, mask, COLOURS[position % len(COLOURS)], outline)
        mask_name = name if len(labels) == 1 else f"{name}_{_as_file_name(label)}"
        save_new(mask.resize((width, height), Image.Resampling.NEAREST), folder / "masks" / f"{mask_name}.png")
    save_new(image, folder / "overlays" / f"{name}.png")
