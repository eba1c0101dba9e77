"""Convert a data set to nnU-Net's raw format.

A converter describes its data set (`Dataset`). `convert` lists the source, pairs images with masks, reads every file
once and collects all problems. Then it writes into a hidden folder beside the target, and renames the complete folder.
"""

from __future__ import annotations

import math
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image, ImageOps

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import whole_file
from nnunetv2_guidino.printable import printable
from nnunetv2_guidino.tools.conversion.checking import inspect, judge, try_all
from nnunetv2_guidino.tools.conversion.dataset import Dataset, Report, Split
from nnunetv2_guidino.tools.conversion.image_files import Exif
from nnunetv2_guidino.tools.conversion.labels import Labels
from nnunetv2_guidino.tools.conversion.masks import TwoLevels
from nnunetv2_guidino.tools.conversion.pairing import find_pairs
from nnunetv2_guidino.tools.conversion.raw_folder import (
    next_command,
    outdated_results,
    problems_of_target,
    raw_folder,
    target_folder,
)
from nnunetv2_guidino.tools.conversion.sources import list_files
from nnunetv2_guidino.tools.conversion.splits import FEWEST, read_split
from nnunetv2_guidino.tools.conversion.writing import MOST_PIXELS, Size, Treatment, draw_outline, write_dataset

PREVIEW_SIDE = 320  # pixels of a picture in the preview


class RefusedError(GuidinoError):
    """A source with problems; `report` lists all of them."""

    def __init__(self, report: Report):
        self.report = report
        first, count = report.problems[0], len(report.problems)
        super().__init__(f"{first} (problems: {count}, listed above; nothing was written)")


def convert(
    sources: Sequence[Path],
    dataset: Dataset,
    output: Path | None = None,
    *,
    dataset_id: int | None = None,
    name: str = "",
    labels: Labels | None = None,
    cut: float | None = None,
    exif: Exif | None = None,
    split_lists: Sequence[Path] = (),
    published_split: bool = True,
    resize: Size | None = None,
    preview: Path | None = None,
    overwrite: bool = False,
    processes: int = 1,
) -> Report:
    """Convert a data set to nnU-Net's raw format, completely or not at all.

    Args:
        sources: Folders, their parents, or zips.
        dataset: The description of the data set, from `load_converter` or your own.
        output: nnU-Net's raw folder; None takes the environment variable nnUNet_raw.
        dataset_id: 1 to 999; None takes the id of `dataset`.
        name: The name of the data set; "" takes the name of `dataset`, or else of the first source.
        labels: The labels in the masks; None takes those of `dataset`, or else masks of two levels.
        cut: The level above which masks of two levels are foreground; None decides it from all masks.
        exif: Whether to take the pixels as stored or upright where the EXIF orientations of image and mask differ and
            both readings have equal sizes. None refuses such pairs.
        split_lists: Files with the names of the cases for training, validation and testing, or with folds.
        published_split: Whether to keep the split of the published data set if there are no `split_lists`.
        resize: (height, width) in pixels of all images and masks.
        preview: A PNG file for a picture of three training cases.
        overwrite: Whether to replace an existing data set.
        processes: The number of processes; more than one need a script's `if __name__ == "__main__"`.

    Returns:
        The report; its `folder` is the data set's.

    Raises:
        RefusedError: If the source has problems; its `report` lists all of them, and nothing was written.
        GuidinoError: If an option is wrong, or a folder cannot be read or written.
    """
    sources = [Path(source) for source in sources]
    dataset = _complete(dataset, sources[0].absolute(), name, labels, cut)
    _check_options(processes, resize, preview)
    target = target_folder(output, dataset.id if dataset_id is None else dataset_id, dataset.name)
    report = Report(target)
    pairs, split_files = find_pairs(dataset, list_files(sources), report)
    if split_lists:
        split = read_split(split_lists, pairs, report.problems)
    elif dataset.split and published_split:
        split = dataset.split(pairs, split_files, report.problems)
    else:
        split = Split(frozenset(pair.name for pair in pairs if pair.part == dataset.test_part))
    report.problems += problems_of_target(target, split, overwrite)
    training = [pair.name for pair in pairs if pair.name not in split.test]
    if pairs and not training:
        report.problems.append("there are no training cases")
    check = partial(inspect, reading=dataset.reading, may_be_grey=dataset.may_be_grey, exif=exif)
    inspections, problems = try_all(check, pairs, processes, "checking")
    report.problems += problems
    reading = judge(dataset, pairs, inspections, split.test, report)
    if report.problems:
        raise RefusedError(report)

    grey = dataset.may_be_grey and all(found.is_grey for found in inspections if found)
    treatment = Treatment(reading, "L" if grey else "RGB", exif, resize)
    with _sigterm_as_exit(), raw_folder(target, split, overwrite) as folder:
        write_dataset(folder, target.name, dataset, pairs, split, treatment, processes)
    if preview:
        _draw_preview(target, training, preview)
    report.training, report.test = len(training), len(split.test)
    if not split.folds and report.training < FEWEST:
        report.warnings.append(
            f"{report.training} training cases are too few for nnU-Net's five folds, which need {FEWEST}; give your "
            "own with --split, or train on all of them: fold `all`"
        )
    report.warnings += outdated_results(target)
    report.next_command = next_command(target)
    return report


def _complete(dataset: Dataset, source: Path, name: str, labels: Labels | None, cut: float | None) -> Dataset:
    """Add the user's choices to the description of a data set."""
    if labels or not dataset.labels:
        labels = labels or Labels.parse("foreground")
        dataset = replace(dataset, labels=labels.names, reading=labels.reading)
    if cut is not None:
        if not 0 <= cut < math.inf:
            raise GuidinoError(f"--cut {cut:g}: expected a level from 0 on")
        if not isinstance(dataset.reading, TwoLevels) or dataset.reading.foreground is not None:
            raise GuidinoError("--cut is for masks of two levels; remove it, or the values in --labels")
        dataset = replace(dataset, reading=replace(dataset.reading, cut=cut))
    name = re.sub(r"\W+", "_", name or dataset.name or source.name.removesuffix(".zip"))
    description = dataset.description or f"Converted from the folder {source.name}."
    return replace(dataset, name=name, description=printable(description))


def _check_options(processes: int, resize: Size | None, preview: Path | None) -> None:
    if processes < 1 or min(resize or [1]) < 1:
        raise GuidinoError("-np and --resize take numbers from 1 on")
    if resize and math.prod(resize) > MOST_PIXELS:
        raise GuidinoError("--resize {} {}: expected at most {:,} pixels".format(*resize, MOST_PIXELS))
    if preview and preview.suffix != ".png":
        raise GuidinoError(f"--preview {preview}: expected a name that ends in .png")
    if preview and not preview.absolute().parent.is_dir():
        raise GuidinoError(f"--preview {preview}: there is no folder {preview.absolute().parent}")


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, so that the unfinished folder is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _draw_preview(target: Path, cases: Sequence[str], file: Path) -> None:
    """Draw three cases, evenly spread over `cases`: the image, and below it the image with the mask's outline."""
    chosen = [cases[len(cases) * i // 3] for i in range(min(3, len(cases)))]
    sheet = Image.new("RGB", (PREVIEW_SIDE * len(chosen), PREVIEW_SIDE * 2), "white")
    for column, case in enumerate(chosen):
        image = Image.open(target / "imagesTr" / f"{case}_0000.png").convert("RGB")
        mask = Image.open(target / "labelsTr" / f"{case}.png").point(lambda label: 255 if label else 0)
        image = ImageOps.contain(image, (PREVIEW_SIDE, PREVIEW_SIDE))
        sheet.paste(image, (column * PREVIEW_SIDE, 0))
        draw_outline(image, mask.resize(image.size, Image.Resampling.NEAREST), "yellow", width=5)
        sheet.paste(image, (column * PREVIEW_SIDE, PREVIEW_SIDE))
    try:
        with whole_file(file) as unfinished:
            sheet.save(unfinished)
    except GuidinoError as error:
        raise GuidinoError(f"{target} is complete, but not --preview: {error}") from error
