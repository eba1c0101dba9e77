"""Find the pairs, check all of them, then write them as nnU-Net wants them.

A converter describes its data set (`Dataset`); `convert` does the rest, in this order: list the source, pair images
with masks, read every file once and collect all problems; only then write into a hidden folder beside the target, which
gets the target's name when it is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from nnunetv2_guidino.conversion.checking import inspect, problems_of_ranges, warnings_of
from nnunetv2_guidino.conversion.dataset import Dataset, SourcePair, Split
from nnunetv2_guidino.conversion.pairing import Found, find_pairs
from nnunetv2_guidino.conversion.preview import draw_preview
from nnunetv2_guidino.conversion.sources import SourceFile, list_files
from nnunetv2_guidino.conversion.splits import read_split
from nnunetv2_guidino.conversion.target import (
    install_splits,
    preprocessed_splits,
    problems_of_splits,
    problems_of_target,
    target_folder,
    warnings_of_leftovers,
)
from nnunetv2_guidino.conversion.workers import map_cases
from nnunetv2_guidino.conversion.writing import Size, complete_or_absent, write_dataset
from nnunetv2_guidino.errors import GuidinoError


@dataclass
class Report:
    """What a conversion found, and what comes next."""

    folder: Path
    training: int = 0  # cases
    test: int = 0  # cases
    notes: list[str] = field(default_factory=list)  # what is not as one might expect
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
        dataset: What to look for in them.
        output: nnU-Net's raw folder; None takes the environment variable nnUNet_raw.
        dataset_id: 1 to 999; None takes the data set's own.
        split_lists: Files with the names of the cases for training, validation and testing.
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
    dataset_id = dataset.id if dataset_id is None else dataset_id
    _check_options(processes, resize, preview)
    target = target_folder(output, dataset_id, dataset.name)
    report = Report(target, notes=[f"warning: {warning}" for warning in warnings_of_leftovers(target)])
    found = find_pairs(dataset, list_files(sources))
    split = _split(dataset, found, split_lists, published_split)
    existing_splits = preprocessed_splits(target)
    report.problems += found.problems + problems_of_target(target, dataset_id, overwrite)
    if found.pairs and all(pair.name in split.test for pair in found.pairs):
        report.problems.append("there are no training cases")
    if not overwrite:
        report.problems += problems_of_splits(existing_splits, split)
    report.notes += _ignored(found.ignored)
    mode = _check_pairs(dataset, found.pairs, processes, report)
    if report.problems:
        raise RefusedError(report)

    try:
        with complete_or_absent(target) as folder:
            write_dataset(folder, target.name, dataset, found.pairs, split, mode, resize, processes)
    except OSError as error:
        raise GuidinoError(f"{target} could not be written: {error}; nothing was changed") from error
    if existing_splits:
        install_splits(target / "splits_final.json", existing_splits)
    training = [pair.name for pair in found.pairs if pair.name not in split.test]
    if preview:
        draw_preview(target, training, preview)
    report.training, report.test = len(training), len(split.test)
    report.next_command = f"nnUNetv2_plan_and_preprocess -d {dataset_id} -c 2d --verify_dataset_integrity"
    return report


def _check_options(processes: int, resize: Size | None, preview: Path | None) -> None:
    if processes < 1 or min(resize or [1]) < 1:
        raise GuidinoError("-np and --resize take numbers from 1 on")
    if preview and preview.suffix != ".png":
        raise GuidinoError(f"--preview {preview}: expected a name that ends in .png")


def _split(dataset: Dataset, found: Found, lists: Sequence[Path], published: bool) -> Split:
    if lists:
        return read_split(lists, found.pairs, found.problems)
    if dataset.split and published:
        return dataset.split(found.pairs, found.split_files, found.problems)
    return Split(frozenset(pair.name for pair in found.pairs if pair.part == dataset.test_part))


def _check_pairs(dataset: Dataset, pairs: Sequence[SourcePair], processes: int, report: Report) -> str:
    """Read every file once; returns the mode of the images to write, L or RGB."""
    check = partial(inspect, values=dataset.values, may_be_grey=dataset.may_be_grey)
    inspections = map_cases(check, pairs, processes, "checking")
    report.problems += [problem for inspection in inspections for problem in inspection.problems]
    if dataset.values is None:
        report.problems += problems_of_ranges(pairs, inspections)
    report.notes += [f"warning: {warning}" for warning in warnings_of(dataset, pairs, inspections)]
    return "L" if dataset.may_be_grey and all(inspection.is_grey for inspection in inspections) else "RGB"


def _ignored(files: Sequence[SourceFile]) -> list[str]:
    """The ignored files, a line per folder."""
    folders: dict[str, list[str]] = {}
    for file in files:
        path = PurePosixPath(file.path)
        folders.setdefault(str(path.parent), []).append(path.name)
    return [
        f"ignored in {folder}: {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        for folder, names in folders.items()
    ]
