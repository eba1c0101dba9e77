"""Cases and their data set as nnU-Net wants them, complete or not at all."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nnunetv2_guidino import __version__
from nnunetv2_guidino.conversion.dataset import Dataset, SourcePair, Split
from nnunetv2_guidino.conversion.image_files import read_image
from nnunetv2_guidino.conversion.masks import read_mask
from nnunetv2_guidino.conversion.workers import map_cases

Size = tuple[int, int]  # height, width


def write_case(
    pair_and_split: tuple[SourcePair, str],
    target: Path,
    values: tuple[int, ...] | None,
    mode: str,
    size: Size | None,
) -> dict[str, Any]:
    """Write one case below `target`; returns its row of mapping.csv."""
    pair, split = pair_and_split
    image = read_image(pair.image, mode)
    original_size = image.size
    mask = Image.fromarray(read_mask(pair.mask, values)[0])
    if size is not None:
        height, width = size
        shrinks = width <= image.width and height <= image.height
        image = image.resize((width, height), Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
        mask = mask.resize((width, height), Image.Resampling.NEAREST)
    suffix = "Ts" if split == "test" else "Tr"
    # Lossless, four times as fast as zlib's default level, and within a few per cent of its size
    image.save(target / f"images{suffix}" / f"{pair.name}_0000.png", compress_type=zlib.Z_RLE)
    mask.save(target / f"labels{suffix}" / f"{pair.name}.png", compress_type=zlib.Z_RLE)
    row = {
        "case": pair.name,
        "original_image": pair.image.path,
        "original_mask": pair.mask.path,
        "split": split,
        "width": image.width,
        "height": image.height,
        "foreground_fraction": f"{np.mean(np.asarray(mask) > 0):.6f}",
    }
    if size is not None:
        row |= {"original_width": original_size[0], "original_height": original_size[1]}
    return row


def write_dataset(
    folder: Path,
    name: str,
    dataset: Dataset,
    pairs: Sequence[SourcePair],
    split: Split,
    mode: str,
    size: Size | None,
    processes: int,
) -> None:
    """Fill `folder` with the data set that is to be called `name`. `mode` is Pillow's, of the images: L or RGB."""
    for suffix in ("Tr", "Ts") if split.test else ("Tr",):
        (folder / f"images{suffix}").mkdir()
        (folder / f"labels{suffix}").mkdir()
    write = partial(write_case, target=folder, values=dataset.values, mode=mode, size=size)
    rows = map_cases(write, [(pair, split.of(pair.name)) for pair in pairs], processes, "writing")
    with (folder / "mapping.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
    if split.folds:
        (folder / "splits_final.json").write_text(json.dumps(split.folds, indent=1) + "\n", encoding="utf-8")
    _write_description(folder, name, dataset, len(pairs) - len(split.test), mode, size)


def _write_description(
    folder: Path, name: str, dataset: Dataset, training_cases: int, mode: str, size: Size | None
) -> None:
    from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json

    resized = " Resized to {} × {} pixels (height × width).".format(*size) if size else ""
    generate_dataset_json(
        str(folder),
        channel_names={0: "grey"} if mode == "L" else {0: "R", 1: "G", 2: "B"},
        labels={"background": 0, **{label: value for value, label in enumerate(dataset.labels, start=1)}},
        num_training_cases=training_cases,
        file_ending=".png",
        dataset_name=name,
        reference=dataset.reference or None,
        release=dataset.release or None,
        license=dataset.licence,
        description=dataset.description + resized,
        converted_by=f"nnunetv2-guidino {__version__}",
    )


@contextmanager
def complete_or_absent(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` at the end. If anything goes wrong before, SIGTERM too, `target` stays
    as it was and the folder is removed."""

    def stop(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    folder, old = (target.with_name(f".{target.name}.{what}-{os.getpid()}") for what in ("incomplete", "old"))
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGTERM, stop) if in_main_thread else None
    try:
        folder.mkdir(parents=True)
        yield folder
        try:
            if target.exists():
                target.rename(old)
            folder.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if in_main_thread:
            signal.signal(signal.SIGTERM, handler)
