"""Cases and their data set as nnU-Net wants them."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nnunetv2_guidino import __version__
from nnunetv2_guidino.conversion.dataset import Dataset, SourcePair, Split
from nnunetv2_guidino.conversion.image_files import as_image
from nnunetv2_guidino.conversion.masks import MaskReading
from nnunetv2_guidino.conversion.reading import Exif, read_pair
from nnunetv2_guidino.conversion.workers import map_cases
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import write_json

Size = tuple[int, int]  # height, width
MOST_PIXELS = 2**27  # of a resized image


@dataclass(frozen=True)
class Treatment:
    """How all cases of a data set are read and written."""

    reading: MaskReading
    mode: str  # Pillow's, of the images: L or RGB
    exif: Exif | None = None
    size: Size | None = None  # None: as they are


def write_case(pair_and_split: tuple[SourcePair, str], target: Path, treatment: Treatment) -> dict[str, Any]:
    """Write one case below `target`; returns its row of mapping.csv. Raises GuidinoError if a file has changed since
    it was checked, and OSError."""
    pair, split = pair_and_split
    try:
        picture, mask_picture, _ = read_pair(pair, treatment.exif)
        image, mask = as_image(picture, treatment.mode), Image.fromarray(treatment.reading.labels(mask_picture))
    except ValueError as error:
        raise GuidinoError(f"{pair.image}: was right when it was checked, and no longer is: {error}") from error
    original_size = image.size
    image = resized(image, treatment.size)
    mask = mask.resize(image.size, Image.Resampling.NEAREST)
    suffix = "Ts" if split == "test" else "Tr"
    for picture, file in ((image, f"images{suffix}/{pair.name}_0000.png"), (mask, f"labels{suffix}/{pair.name}.png")):
        save_new(picture, target / file)
    row = {
        "case": no_formula(pair.name),
        "original_image": no_formula(pair.image.path),
        "original_mask": no_formula(pair.mask.path),
        "split": split,
        "width": image.width,
        "height": image.height,
        "foreground_fraction": f"{np.mean(np.asarray(mask) > 0):.6f}",
    }
    if treatment.size is not None:
        row |= {"original_width": original_size[0], "original_height": original_size[1]}
    return row


def resized(image: Image.Image, size: Size | None) -> Image.Image:
    """The image of that size (None: as it is), by averages over areas where it shrinks."""
    if size is None:
        return image
    height, width = size
    shrinks = width <= image.width and height <= image.height
    return image.resize((width, height), Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)


def save_new(image: Image.Image, file: Path) -> None:
    """Save an image without loss; OSError if the file exists, as two names may be one on a file system."""
    with file.open("xb") as stream:
        # four times as fast as zlib's default level, and within a few per cent of its size
        options = {"compress_type": zlib.Z_RLE} if file.suffix == ".png" else {}
        image.save(stream, Image.registered_extensions()[file.suffix], **options)


def no_formula(text: str) -> str:
    """The text with an apostrophe before what a spreadsheet would take for a formula and run."""
    return f"'{text}" if text[:1] in tuple("=+-@") else text


def write_mapping(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the table that leads from cases to their files."""
    # a folder's name may hold bytes that are no letters
    with file.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        table = csv.DictWriter(stream, rows[0].keys())
        table.writeheader()
        table.writerows(rows)


def write_dataset(
    folder: Path,
    name: str,
    dataset: Dataset,
    pairs: Sequence[SourcePair],
    split: Split,
    treatment: Treatment,
    processes: int,
) -> None:
    """Fill `folder` with the data set that is to be called `name`. Raises GuidinoError and OSError."""
    for suffix in ("Tr", "Ts") if split.test else ("Tr",):
        (folder / f"images{suffix}").mkdir()
        (folder / f"labels{suffix}").mkdir()
    write = partial(write_case, target=folder, treatment=treatment)
    rows = map_cases(write, [(pair, split.of(pair.name)) for pair in pairs], processes, "writing")
    write_mapping(folder / "mapping.csv", rows)
    if split.folds:
        write_json(folder / "splits_final.json", split.folds, indent=1)
    _write_description(folder, name, dataset, len(pairs) - len(split.test), treatment)


def _write_description(folder: Path, name: str, dataset: Dataset, training_cases: int, treatment: Treatment) -> None:
    from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json

    resized = " Resized to {} × {} pixels (height × width).".format(*treatment.size) if treatment.size else ""
    generate_dataset_json(
        str(folder),
        channel_names={0: "grey"} if treatment.mode == "L" else {0: "R", 1: "G", 2: "B"},
        labels={"background": 0, **{label: value for value, label in enumerate(dataset.labels, start=1)}},
        num_training_cases=training_cases,
        file_ending=".png",
        dataset_name=name,
        reference=dataset.reference or None,
        release=dataset.release or None,
        license=dataset.licence,
        description=dataset.description + resized,
        **({"resized_to": list(treatment.size)} if treatment.size else {}),
        converted_by=f"nnunetv2-guidino {__version__}",
    )
