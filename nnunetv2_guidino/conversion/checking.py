"""What is wrong with a source, found before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nnunetv2_guidino.conversion.dataset import Dataset, SourcePair
from nnunetv2_guidino.conversion.image_files import decode, is_grey, on_black
from nnunetv2_guidino.conversion.masks import read_mask


@dataclass(frozen=True)
class Inspection:
    """What one pair is like."""

    problems: list[str]
    is_grey: bool = True
    mask_range: int = 0
    is_empty: bool = False


def inspect(pair: SourcePair, values: tuple[int, ...] | None, may_be_grey: bool) -> Inspection:
    """Read both files of a pair completely and say what is wrong with them."""
    problems = []
    image, labels, mask_range = None, None, 0
    try:
        image = on_black(decode(pair.image))
    except Exception as error:  # each of Pillow's decoders has its own way to fail on a damaged file
        problems.append(f"{pair.image}: {error}")
    try:
        labels, mask_range = read_mask(pair.mask, values)
    except Exception as error:
        problems.append(f"{pair.mask}: {error}")
    if image is None or labels is None:
        return Inspection(problems)
    if image.size != labels.shape[::-1]:
        sizes = "image {}×{}, mask {}×{}".format(*image.size, *labels.shape[::-1])
        problems.append(f"{pair.image}: image and mask differ in size ({sizes}; width × height, upright after EXIF)")
    return Inspection(problems, may_be_grey and is_grey(image), mask_range, not labels.any())


def problems_of_ranges(pairs: Sequence[SourcePair], inspections: Sequence[Inspection]) -> list[str]:
    """A mask of 0 and 1 among masks of 0 and 255 is empty or full: only its author knows."""
    largest = max((inspection.mask_range for inspection in inspections), default=0)
    example = next(
        (pair.mask for pair, found in zip(pairs, inspections, strict=True) if found.mask_range == largest), None
    )
    return [
        f"{pair.mask}: its levels end at {found.mask_range}, those of {example} at {largest}; expected one encoding"
        for pair, found in zip(pairs, inspections, strict=True)
        if 0 < found.mask_range <= largest / 2
    ]


def warnings_of(dataset: Dataset, pairs: Sequence[SourcePair], inspections: Sequence[Inspection]) -> list[str]:
    """What may be as it should, but should be known."""
    warnings = []
    counts = Counter(pair.part for pair in pairs)
    for part, expected in dataset.counts.items():
        if counts[part] != expected:
            difference = f"{counts[part]:,} instead of {expected:,} ({counts[part] - expected:+,})"
            warnings.append(f"{part or dataset.name}: the number of cases is {difference}")
    empty = [pair.name for pair, inspection in zip(pairs, inspections, strict=True) if inspection.is_empty]
    if empty:
        warnings.append(f"{len(empty)} masks are empty: {', '.join(empty[:10])}")
    return warnings
