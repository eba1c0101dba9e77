"""Find the pairs, check all of them, then write them as nnU-Net wants them.

A converter describes its data set (`Dataset`); `convert` does the rest, in this order: list the source, pair images
with masks, read every file once and collect all problems; only then write into a hidden folder beside the target, which
gets the target's name when it is complete.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

from nnunetv2_guidino.conversion.checking import inspect, judge, unlike_published
from nnunetv2_guidino.conversion.dataset import Dataset, SourcePair, Split
from nnunetv2_guidino.conversion.labels import Labels
from nnunetv2_guidino.conversion.masks import TwoLevels
from nnunetv2_guidino.conversion.pairing import Found, find_pairs
from nnunetv2_guidino.conversion.placing import complete_or_absent
from nnunetv2_guidino.conversion.preview import draw_preview
from nnunetv2_guidino.conversion.reading import Exif
from nnunetv2_guidino.conversion.sources import SourceFile, list_files
from nnunetv2_guidino.conversion.splits import advice_on_few, read_split
from nnunetv2_guidino.conversion.target import (
    install_splits,
    made_of_old_data,
    next_command,
    preprocessed_splits,
    problems_of_splits,
    problems_of_target,
    target_folder,
    warnings_of_leftovers,
)
from nnunetv2_guidino.conversion.workers import map_cases
from nnunetv2_guidino.conversion.writing import MOST_PIXELS, Size, Treatment, write_dataset
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.printable import printable


@dataclass
class Report:
    """What a conversion found and decided, and what comes next."""

    folder: Path  # the data set's
    training: int = 0  # cases
    test: int = 0  # cases
    masks: str = ""  # how all of them were read
    notes: list[str] = field(default_factory=list)  # what was ignored or taken off
    warnings: list[str] = field(default_factory=list)  # what may be wrong
    problems: list[str] = field(default_factory=list)  # why nothing was written
    next_command: str = ""


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
    """Convert a data set to nnU-Net's raw format, complete or not at all.

    Args:
        sources: Folders, their parents, or zips.
        dataset: What to look for in them: a converter's, from `load_converter`, or one of your own.
        output: nnU-Net's raw folder; None takes the environment variable nnUNet_raw.
        dataset_id: 1 to 999; None takes the data set's own.
        name: Of the data set; where neither it nor `dataset` says one, the first source's.
        labels: What the masks hold, where `dataset` does not say; None takes masks of two levels.
        cut: The level above which masks of two levels are foreground; None decides it from all masks.
        exif: Where only one of image and mask has an EXIF orientation and they fit each other both ways: whether the
            pixels are taken as stored, or upright. None refuses such pairs.
        split_lists: Files with the names of the cases for training, validation and testing, or with folds.
        published_split: Whether to keep the split of the published data set, where no `split_lists` are given.
        resize: (height, width) in pixels that all images and masks get.
        preview: A PNG file to draw three of the training cases into.
        overwrite: Whether to replace the data set if it exists.
        processes: How many work; more than one need a script's `if __name__ == "__main__"`.

    Returns:
        The report; its `folder` is the data set's.

    Raises:
        RefusedError: If anything is wrong with the source; nothing was written, and its `report` has all problems.
        GuidinoError: If an option is wrong or a folder cannot be read or written.
    """
    sources = [Path(source) for source in sources]
    dataset = _described(dataset, sources[0].absolute(), name, labels, cut)
    _check_options(processes, resize, preview)
    target = target_folder(output, dataset.id if dataset_id is None else dataset_id, dataset.name)
    report = Report(target, warnings=warnings_of_leftovers(target))
    found = find_pairs(dataset, list_files(sources))
    split = _split(dataset, found, split_lists, published_split)
    report.problems += found.problems + problems_of_target(target, overwrite)
    report.notes += _ignored(found.ignored) + found.notes
    if not overwrite:
        report.problems += problems_of_splits(preprocessed_splits(target), split)
    training = [pair.name for pair in found.pairs if pair.name not in split.test]
    if found.pairs and not training:
        report.problems.append("there are no training cases")
    treatment = _check_pairs(
        dataset, found.pairs, split, Treatment(dataset.reading, "RGB", exif, resize), processes, report
    )
    if report.problems:
        raise RefusedError(report)

    with complete_or_absent(target, overwrite) as folder:
        write_dataset(folder, target.name, dataset, found.pairs, split, treatment, processes)
    if splits := preprocessed_splits(target):
        install_splits(target / "splits_final.json", splits)
    if preview:
        draw_preview(target, training, preview)
    report.training, report.test = len(training), len(split.test)
    report.warnings += advice_on_few(report.training, split) + made_of_old_data(target)
    report.next_command = next_command(target)
    return report


def _described(dataset: Dataset, source: Path, name: str, labels: Labels | None, cut: float | None) -> Dataset:
    """The data set with what it leaves open to whoever converts it."""
    if labels or not dataset.labels:
        labels = labels or Labels.parse("foreground")
        dataset = replace(dataset, labels=labels.names, reading=labels.reading)
    if cut is not None:
        if not 0 <= cut < math.inf:
            raise GuidinoError(f"--cut {cut:g}: expected a level from 0 on")
        if not isinstance(dataset.reading, TwoLevels) or dataset.reading.foreground is not None:
            raise GuidinoError("--cut is for masks of two levels; --labels with values says all by itself")
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


def _split(dataset: Dataset, found: Found, lists: Sequence[Path], published: bool) -> Split:
    if lists:
        return read_split(lists, found.pairs, found.problems)
    if dataset.split and published:
        return dataset.split(found.pairs, found.split_files, found.problems)
    return Split(frozenset(pair.name for pair in found.pairs if pair.part == dataset.test_part))


def _check_pairs(
    dataset: Dataset,
    pairs: Sequence[SourcePair],
    split: Split,
    treatment: Treatment,
    processes: int,
    report: Report,
) -> Treatment:
    """Read every file once; returns the treatment with what all of them together decide."""
    check = partial(inspect, reading=treatment.reading, may_be_grey=dataset.may_be_grey, exif=treatment.exif)
    inspections = map_cases(check, pairs, processes, "checking")
    verdict = judge(dataset, pairs, inspections, split.test)
    report.problems += verdict.problems
    report.warnings += unlike_published(dataset, pairs) + verdict.warnings
    report.masks = verdict.rule
    grey = dataset.may_be_grey and all(inspection.is_grey for inspection in inspections)
    return replace(treatment, reading=verdict.reading, mode="L" if grey else "RGB")


def _ignored(files: Sequence[SourceFile]) -> list[str]:
    """The ignored files, a line per folder."""
    folders: dict[str, list[str]] = {}
    for file in files:
        path = PurePosixPath(printable(file.path))
        folders.setdefault(str(path.parent), []).append(path.name)
    return [
        f"ignored in {folder}: {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        for folder, names in folders.items()
    ]
