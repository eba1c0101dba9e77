"""What a converter says about its data set, and how its cases are named and split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nnunetv2_guidino.conversion.masks import TWO_LEVELS, MaskReading
from nnunetv2_guidino.conversion.sources import SourceFile

IMAGE_SUFFIX = r"(?i:\.(?:png|jpe?g|bmp|tiff?|gif))"
IMAGES = rf"images/(?P<stem>[^/]+){IMAGE_SUFFIX}"
MASKS = rf"masks/(?P<stem>[^/]+){IMAGE_SUFFIX}"
Fold = dict[str, list[str]]


@dataclass(frozen=True)
class SourcePair:
    """An image and its mask as published, and the case that they become."""

    name: str  # nnU-Net's case identifier
    part: str  # of the published set: Training, trainval …; "" where it has none
    image: SourceFile
    mask: SourceFile


@dataclass(frozen=True)
class Split:
    """Which cases are for testing, and nnU-Net's folds over the others; no folds leave them to nnU-Net."""

    test: frozenset[str] = frozenset()
    folds: tuple[Fold, ...] = ()

    def of(self, case: str) -> str:
        """The word for a case in mapping.csv: test, train or val; trainval where several folds rotate."""
        if case in self.test:
            return "test"
        if len(self.folds) != 1:
            return "trainval"
        return "val" if case in self.folds[0]["val"] else "train"


# Takes the pairs, the files that `Dataset.split_files` names, and a list to which it appends what does not fit.
PublishedSplit = Callable[[list[SourcePair], list[SourceFile], list[str]], Split]


@dataclass(frozen=True)
class Dataset:
    """A data set as published, and as nnU-Net shall know it.

    `image` and `mask` are regular expressions for the end of a path, with a group `stem` that pairs them and, where the
    set is published in parts, a group `part`. A set without name and labels is described by whoever converts it.
    """

    id: int
    name: str
    image: str
    mask: str
    layout: str  # `image` and `mask` in words, for messages
    labels: tuple[str, ...]  # foreground labels, 1, 2, …
    reading: MaskReading = TWO_LEVELS  # how masks become labels; as it stands, one label, cut where all masks say
    case_name: str = "{stem}"
    split: PublishedSplit | None = None  # None: all for training, in nnU-Net's own folds
    split_files: str = r"(?!)"  # files that `split` reads
    test_part: str | None = None  # the part that is for testing even where `split` is not wanted
    counts: Mapping[str, int] = field(default_factory=dict)  # part: cases published
    may_be_grey: bool = False  # one channel if all images are grey
    reference: str = ""
    licence: str = ""
    release: str = ""
    description: str = ""
