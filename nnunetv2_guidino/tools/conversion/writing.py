"""Write cases and their data set in nnU-Net's raw format."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from nnunetv2_guidino import __version__
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import write_json
from nnunetv2_guidino.tools.conversion.dataset import Dataset, Split
from nnunetv2_guidino.tools.conversion.image_files import Exif, as_image, read_pair
from nnunetv2_guidino.tools.conversion.masks import MaskReading
from nnunetv2_guidino.tools.conversion.sources import SourcePair
from nnunetv2_guidino.workers import map_cases

Size = tuple[int, int]  # height, width
MOST_PIXELS = 2**27  # of a resized image


@dataclass(frozen=True)
class Treatment:
    """The options that all cases of a data set share."""

    reading: MaskReading
    mode: str  # Pillow's mode of the images: L or RGB
    exif: Exif | None = None
    size: Size | None = None  # None: the sizes stay


def read_case(pair: SourcePair, treatment: Treatment) -> tuple[Image.Image, Image.Image]:
    """Read the image and the labels of a checked pair. Raises GuidinoError if a file has changed since the check."""
    try:
        picture, mask, _ = read_pair(pair, treatment.exif)
        return as_image(picture, treatment.mode), Image.fromarray(treatment.reading.labels(mask))
    except ValueError as error:
        raise GuidinoError(f"{pair.image}: has changed since it was checked: {error}; start again") from error


def _write_case(pair_and_role: tuple[SourcePair, str], folder: Path, treatment: Treatment) -> dict[str, Any]:
    """Write one case, and return its row of mapping.csv."""
    pair, role = pair_and_role
    original, mask = read_case(pair, treatment)
    image = resized(original, treatment.size)
    mask = mask.resize(image.size, Image.Resampling.NEAREST)
    suffix = "Ts" if role == "test" else "Tr"
    save_new(image, folder / f"images{suffix}" / f"{pair.name}_0000.png")
    save_new(mask, folder / f"labels{suffix}" / f"{pair.name}.png")
    row = {
        "case": no_formula(pair.name),
        "original_image": no_formula(pair.image.path),
        "original_mask": no_formula(pair.mask.path),
        "split": role,
        "width": image.width,
        "height": image.height,
        "foreground_fraction": f"{np.mean(np.asarray(mask) > 0):.6f}",
    }
    original_size = {"original_width": original.width, "original_height": original.height}
    return row | (original_size if treatment.size else {})


def resized(image: Image.Image, size: Size | None) -> Image.Image:
    """Resize an image (None: keep its size); averages over areas where it shrinks."""
    if size is None:
        return image
    height, width = size
    shrinks = width <= image.width and height <= image.height
    return image.resize((width, height), Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)


def save_new(image: Image.Image, file: Path) -> None:
    """Save an image without loss. Raises OSError if the file exists: a file system may take two names for one."""
    with file.open("xb") as stream:
        # four times as fast as zlib's default level, with files that differ by a few per cent
        options = {"compress_type": zlib.Z_RLE} if file.suffix == ".png" else {}
        image.save(stream, Image.registered_extensions()[file.suffix], **options)


def draw_outline(image: Image.Image, mask: Image.Image, colour: str, width: int) -> None:
    """Draw the inner edge of a mask of 0 and 255 onto an RGB image; `width` is odd, in pixels."""
    inside = mask.filter(ImageFilter.MinFilter(width))
    image.paste(colour, mask=ImageChops.subtract(mask, inside))


def no_formula(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula."""
    return f"'{text}" if text[:1] in tuple("=+-@") else text


def write_mapping(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the table of the cases and their files."""
    # the name of a folder may hold bytes that are not text
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
    """Fill `folder` with the data set `name`. Raises GuidinoError and OSError."""
    from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json

    for suffix in ("Tr", "Ts") if split.test else ("Tr",):
        (folder / f"images{suffix}").mkdir()
        (folder / f"labels{suffix}").mkdir()
    write = partial(_write_case, folder=folder, treatment=treatment)
    rows = map_cases(write, [(pair, split.role(pair.name)) for pair in pairs], processes, "writing")
    write_mapping(folder / "mapping.csv", rows)
    if split.folds:
        write_json(folder / "splits_final.json", split.folds, indent=1)
    size = treatment.size
    generate_dataset_json(
        str(folder),
        channel_names={0: "grey"} if treatment.mode == "L" else {0: "R", 1: "G", 2: "B"},
        labels={"background": 0, **{label: value for value, label in enumerate(dataset.labels, start=1)}},
        num_training_cases=len(pairs) - len(split.test),
        file_ending=".png",
        dataset_name=name,
        reference=dataset.reference or None,
        release=dataset.release or None,
        license=dataset.licence,
        description=dataset.description
        + (f" Resized to {size[0]} × {size[1]} pixels (height × width)." if size else ""),
        **({"resized_to": list(size)} if size else {}),
        converted_by=f"nnunetv2-guidino {__version__}",
    )
