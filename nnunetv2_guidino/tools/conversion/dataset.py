"""The description of a data set by its converter, and its split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_guidino.tools.conversion.masks import TWO_LEVELS, MaskReading
from nnunetv2_guidino.tools.conversion.sources import SourceFile, SourcePair

IMAGE_SUFFIX = r"(?i:\.(?:png|jpe?g|bmp|tiff?|gif))"
IMAGES = rf"images/(?P<stem>[^/]+){IMAGE_SUFFIX}"
MASKS = rf"masks/(?P<stem>[^/]+){IMAGE_SUFFIX}"
Fold = dict[str, list[str]]


@dataclass(frozen=True)
class Split:
    """The test cases, and nnU-Net's folds over the other cases. Without folds nnU-Net makes its own."""

    test: frozenset[str] = frozenset()
    folds: tuple[Fold, ...] = ()

    def role(self, case: str) -> str:
        """Return the entry of a case in mapping.csv: test, train or val; trainval if there is not exactly one fold."""
        if case in self.test:
            return "test"
        if len(self.folds) != 1:
            return "trainval"
        return "val" if case in self.folds[0]["val"] else "train"


@dataclass
class Report:
    """The findings, decisions and next step of a conversion."""

    folder: Path  # the data set's
    training: int = 0  # cases
    test: int = 0  # cases
    masks: str = ""  # the rule that all masks were read by
    notes: list[str] = field(default_factory=list)  # ignored files, and removed parts of names
    warnings: list[str] = field(default_factory=list)  # possible faults
    problems: list[str] = field(default_factory=list)  # faults; with any, nothing was written
    next_command: str = ""


# Arguments: the pairs, the files that match `Dataset.split_files`, and a list to which the function appends problems
PublishedSplit = Callable[[list[SourcePair], list[SourceFile], list[str]], Split]


@dataclass(frozen=True)
class Dataset:
    """A data set as published, and its description for nnU-Net.

    `image` and `mask` are regular expressions that match the end of a path. Their group `stem` pairs images with masks.
    A set that is published in parts also has a group `part`. The user gives a name and labels that are missing here.
    """

    id: int
    name: str
    image: str
    mask: str
    layout: str  # `image` and `mask` in words, for messages
    labels: tuple[str, ...]  # foreground labels, 1, 2, …
    reading: MaskReading = TWO_LEVELS  # turns masks into labels; the default has one label and decides the cut
    case_name: str = "{stem}"
    split: PublishedSplit | None = None  # None: all cases are for training, in nnU-Net's own folds
    split_files: str = r"(?!)"  # files that `split` reads
    test_part: str | None = None  # the part that is for testing even without `split`
    counts: Mapping[str, int] = field(default_factory=dict)  # published number of cases of each part
    may_be_grey: bool = False  # write one channel if all images are grey
    reference: str = ""
    licence: str = ""
    release: str = ""
    description: str = ""
