"""What is wrong with a source, found before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from nnunetv2_guidino.conversion.dataset import Dataset, SourcePair
from nnunetv2_guidino.conversion.image_files import is_grey, on_black
from nnunetv2_guidino.conversion.labels import IGNORE
from nnunetv2_guidino.conversion.masks import Evidence, MaskReading, TwoLevels, decide_cut, examine
from nnunetv2_guidino.conversion.reading import Exif, UnclearOrientationError, UnreadableError, read_pair
from nnunetv2_guidino.printable import printable

SHOWN = 10  # names in a message


@dataclass(frozen=True)
class Inspection:
    """What one pair is like."""

    problems: tuple[str, ...] = ()
    is_grey: bool = True
    evidence: Evidence | None = None  # of a mask of two levels
    labels: frozenset[int] = frozenset()  # in a label map
    as_stored: bool = False  # the pixels are taken as stored, since only that fits
    is_unclear: bool = False  # image and mask differ in EXIF's orientation, and both readings fit


def inspect(pair: SourcePair, reading: MaskReading, may_be_grey: bool, exif: Exif | None) -> Inspection:
    """Read both files of a pair completely and say what is wrong with them."""
    try:
        image, mask, as_stored = read_pair(pair, exif)
    except UnclearOrientationError:
        return Inspection(is_unclear=True)
    except UnreadableError as error:
        return Inspection(tuple(error.problems))
    except ValueError as error:
        return Inspection((f"{pair.image}: {error}",))
    try:
        grey = may_be_grey and is_grey(on_black(image))
        evidence, labels = _look_at(mask, reading)
    except ValueError as error:
        return Inspection((f"{pair.mask}: {error}",))
    return Inspection((), grey, evidence, labels, as_stored)


def _look_at(mask: Image.Image, reading: MaskReading) -> tuple[Evidence | None, frozenset[int]]:
    if not isinstance(reading, TwoLevels):
        return None, frozenset(np.flatnonzero(np.bincount(reading.labels(mask).ravel())).tolist())
    levels = reading.levels(mask)
    return examine(levels, two_only=reading.cut is None), frozenset()


@dataclass
class Verdict:
    """What the inspections of all pairs come to."""

    reading: MaskReading  # with the cut decided
    rule: str  # the same in words
    problems: list[str]
    warnings: list[str]


def judge(
    dataset: Dataset, pairs: Sequence[SourcePair], inspections: Sequence[Inspection], test: frozenset[str]
) -> Verdict:
    """Decide for the whole data set how its masks are read, and say what is wrong with it or unusual.

    `test` has the names of the cases for testing.
    """
    seen = list(zip(pairs, inspections, strict=True))
    verdict = _judge_masks(dataset, seen, test)
    problems = [problem for _, inspection in seen for problem in inspection.problems]
    stored = [pair.name for pair, inspection in seen if inspection.as_stored]
    problems += _unclear_orientations([pair.name for pair, inspection in seen if inspection.is_unclear], stored)
    verdict.problems[:0] = problems
    if stored:
        verdict.warnings.append(
            f"{len(stored)} pairs are taken as stored: image and mask differ in their EXIF orientation, and only so "
            f"they are of one size: {some(stored)}"
        )
    return verdict


def _judge_masks(dataset: Dataset, seen: Sequence[tuple[SourcePair, Inspection]], test: frozenset[str]) -> Verdict:
    if isinstance(dataset.reading, TwoLevels):
        verdict, present = _judge_levels(dataset.labels[0], dataset.reading, seen)
    else:
        present = {pair.name: inspection.labels for pair, inspection in seen if inspection.labels}
        verdict = Verdict(dataset.reading, f"label maps of {dataset.reading.named(dataset.labels)}", [], [])
    empty = [name for name, labels in present.items() if not labels - {0}]
    if empty:
        verdict.warnings.append(f"{len(empty)} masks are empty: {some(empty)}")
    training = frozenset[int]().union(*(labels for name, labels in present.items() if name not in test))
    foreground = {label: name for label, name in enumerate(dataset.labels, start=1) if name != IGNORE}
    missing = [name for label, name in foreground.items() if label not in training]
    if len(missing) < len(foreground):
        verdict.warnings += [f"label {name}: is in no training mask" for name in missing]
    elif present and not any(inspection.problems for _, inspection in seen) and not verdict.problems:
        verdict.problems.append("all training masks are empty: there is nothing to learn")
    return verdict


def _judge_levels(
    label: str, reading: TwoLevels, seen: Sequence[tuple[SourcePair, Inspection]]
) -> tuple[Verdict, dict[str, frozenset[int]]]:
    """The cut for all masks, and which labels each has by it."""
    masks = [(pair, inspection.evidence) for pair, inspection in seen if inspection.evidence]
    decision = decide_cut([(pair.mask, evidence) for pair, evidence in masks], reading)
    verdict = Verdict(decision.reading, decision.rule, decision.problems, [])
    full = [pair.name for (pair, _), labels in zip(masks, decision.labels, strict=True) if labels == {1}]
    if full:
        verdict.warnings.append(f"{len(full)} masks are full, foreground everywhere: {some(full)}")
    share = float(np.mean([evidence.share for _, evidence in masks])) if masks else 0.0
    if share > 1 / 2 and reading.foreground is None:
        verdict.warnings.append(
            f"the foreground covers {share:.0%} of the masks; if what is dark is meant, name both levels: "
            f"--labels background=255,{label}=0"
        )
    return verdict, {pair.name: labels for (pair, _), labels in zip(masks, decision.labels, strict=True)}


def _unclear_orientations(names: Sequence[str], stored: Sequence[str]) -> list[str]:
    if not names:
        return []
    others = f" ({len(stored)} other pairs fit as stored only)" if stored else ""
    return [
        f"{some(names)}: image and mask differ in their EXIF orientation, and fit each other both ways{others}; pass "
        "--exif stored if such masks were drawn on the pixels as stored, --exif upright if on the upright image"
    ]


def unlike_published(dataset: Dataset, pairs: Iterable[SourcePair]) -> list[str]:
    """Where the numbers of cases differ from the published ones."""
    counts = Counter(pair.part for pair in pairs)
    return [
        f"{part or dataset.name}: the number of cases is {counts[part]:,} instead of {expected:,} "
        f"({counts[part] - expected:+,})"
        for part, expected in dataset.counts.items()
        if counts[part] != expected
    ]


def some(names: Sequence[str]) -> str:
    """The names, or the first of them and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(printable(name) for name in names[:SHOWN]) + more
