"""Check a source completely before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from nnunetv2_guidino.printable import printable
from nnunetv2_guidino.tools.conversion.dataset import Dataset, Report
from nnunetv2_guidino.tools.conversion.image_files import Exif, is_grey, on_black, read_pair
from nnunetv2_guidino.tools.conversion.labels import IGNORE
from nnunetv2_guidino.tools.conversion.masks import Evidence, MaskReading, TwoLevels, decide_cut, examine
from nnunetv2_guidino.tools.conversion.sources import SourcePair
from nnunetv2_guidino.workers import map_cases

SHOWN = 10  # names in a message
Item = TypeVar("Item")
Result = TypeVar("Result")


def try_all(
    function: Callable[[Item], Result], items: Sequence[Item], processes: int, title: str
) -> tuple[list[Result | None], list[str]]:
    """Return the results of a function for all items, None where it raised a ValueError, and the lines of these errors.

    Raises:
        GuidinoError: If a worker process is killed, or `processes` is below 1.
    """
    outcomes = map_cases(partial(_attempt, function), items, processes, title)
    return [result for result, _ in outcomes], [line for _, problem in outcomes for line in problem.splitlines()]


def _attempt(function: Callable[[Item], Result], item: Item) -> tuple[Result | None, str]:
    try:
        return function(item), ""
    except ValueError as error:
        return None, str(error)


@dataclass(frozen=True)
class Inspection:
    """The properties of one pair."""

    exif: Exif | None  # how image and mask fit each other; None: both as stored and upright
    is_grey: bool
    mask: Evidence | frozenset[int]  # the levels of a mask of two levels, or the labels in a label map


def inspect(pair: SourcePair, reading: MaskReading, may_be_grey: bool, exif: Exif | None) -> Inspection:
    """Read both files of a pair completely. Raises ValueError with a line for each file that cannot be used."""
    image, mask, fitting = read_pair(pair, exif)
    try:
        if isinstance(reading, TwoLevels):
            found: Evidence | frozenset[int] = examine(reading.levels(mask), two_only=reading.cut is None)
        else:
            found = frozenset(np.unique(reading.labels(mask)).tolist())
    except ValueError as error:
        raise ValueError(f"{pair.mask}: {error}") from error
    return Inspection(fitting, may_be_grey and is_grey(on_black(image)), found)


def judge(
    dataset: Dataset,
    pairs: Sequence[SourcePair],
    inspections: Sequence[Inspection | None],
    test: frozenset[str],
    report: Report,
) -> MaskReading:
    """Decide for the whole data set how to read its masks, and report problems and warnings.

    Args:
        dataset: Its `reading` may leave the cut open.
        pairs: All pairs of the data set.
        inspections: The inspection of each pair; None for a pair with a problem, which `report` has already.
        test: The names of the cases for testing.
        report: The function adds problems, warnings, and the rule for the masks.
    """
    counts = Counter(pair.part for pair in pairs)
    report.warnings += [
        f"{part or dataset.name}: the number of cases is {counts[part]:,} instead of {expected:,} "
        f"({counts[part] - expected:+,})"
        for part, expected in dataset.counts.items()
        if counts[part] != expected
    ]
    seen = [(pair, inspection) for pair, inspection in zip(pairs, inspections, strict=True) if inspection]
    problems: list[str] = []
    stored = [pair.name for pair, inspection in seen if inspection.exif == "stored"]
    if unclear := [pair.name for pair, inspection in seen if inspection.exif is None]:
        others = f" ({len(stored)} other pairs fit as stored only)" if stored else ""
        problems.append(
            f"{_listed(unclear)}: image and mask differ in their EXIF orientation, and fit each other both ways"
            f"{others}; pass --exif stored if such masks were drawn on the pixels as stored, --exif upright if they "
            "were drawn on the upright image"
        )
    reading, present = _judge_masks(dataset, seen, problems, report)
    if empty := [name for name, labels in present.items() if not labels - {0}]:
        report.warnings.append(f"{len(empty)} masks are empty: {_listed(empty)}")
    training = frozenset[int]().union(*(labels for name, labels in present.items() if name not in test))
    foreground = {label: name for label, name in enumerate(dataset.labels, start=1) if name != IGNORE}
    if training & foreground.keys():
        missing = [name for label, name in foreground.items() if label not in training]
        report.warnings += [f"label {name}: is in no training mask" for name in missing]
    elif present and len(seen) == len(pairs) and not problems:
        problems.append("all training masks are empty: there is nothing to learn")
    if stored:
        report.warnings.append(
            f"{len(stored)} pairs are taken as stored: image and mask differ in their EXIF orientation, and only the "
            f"stored pixels have one size: {_listed(stored)}"
        )
    report.problems += problems
    return reading


def _judge_masks(
    dataset: Dataset, seen: Sequence[tuple[SourcePair, Inspection]], problems: list[str], report: Report
) -> tuple[MaskReading, dict[str, frozenset[int]]]:
    """Return how to read the masks, and the labels of each case."""
    reading = dataset.reading
    if not isinstance(reading, TwoLevels):
        report.masks = f"label maps of {reading.named(dataset.labels)}"
        return reading, {pair.name: found.mask for pair, found in seen if isinstance(found.mask, frozenset)}
    masks = [(pair, found.mask) for pair, found in seen if isinstance(found.mask, Evidence)]
    decided, report.masks, unclear = decide_cut([(pair.mask, evidence) for pair, evidence in masks], reading)
    assert decided.cut is not None
    problems += unclear
    present = {pair.name: evidence.labels(decided.cut) for pair, evidence in masks}
    if full := [name for name, labels in present.items() if labels == {1}]:
        report.warnings.append(f"{len(full)} masks are full, foreground everywhere: {_listed(full)}")
    share = float(np.mean([evidence.share for _, evidence in masks])) if masks else 0.0
    if share > 1 / 2 and reading.foreground is None:
        report.warnings.append(
            f"the foreground covers {share:.0%} of the masks; if the dark pixels are the foreground, name both levels: "
            f"--labels background=255,{dataset.labels[0]}=0"
        )
    return decided, present


def _listed(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(printable(name) for name in names[:SHOWN]) + more
