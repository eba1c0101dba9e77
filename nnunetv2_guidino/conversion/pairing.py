"""Which image goes with which mask."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from nnunetv2_guidino.conversion.dataset import Dataset, SourcePair
from nnunetv2_guidino.conversion.sources import SourceFile


@dataclass
class Found:
    """What a listing of files holds for a data set."""

    pairs: list[SourcePair] = field(default_factory=list)
    split_files: list[SourceFile] = field(default_factory=list)
    ignored: list[SourceFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find_pairs(dataset: Dataset, files: Iterable[SourceFile]) -> Found:
    """Pair images with masks by their stems. A file without its counterpart is a problem."""
    found = Found()
    images: dict[tuple[str, str], SourceFile] = {}
    masks: dict[tuple[str, str], SourceFile] = {}
    for file in files:
        for pattern, kind in ((dataset.image, images), (dataset.mask, masks)):
            if match := re.search(f"(?:^|/){pattern}$", file.path):
                # macOS decomposes accented letters in file names, other systems do not
                key = (match.groupdict().get("part") or "", unicodedata.normalize("NFC", match["stem"]))
                if key in kind:
                    found.problems.append(f"{file}: has the same name as {kind[key]}; give SRC so that one is left")
                kind[key] = file
                break
        else:
            for_split = re.search(f"(?:^|/){dataset.split_files}$", file.path)
            (found.split_files if for_split else found.ignored).append(file)

    for key in sorted(images.keys() | masks.keys()):
        part, stem = key
        if key not in masks:
            found.problems.append(f"{images[key]}: has no mask")
        elif key not in images:
            found.problems.append(f"{masks[key]}: is the mask of no image")
        else:
            name = dataset.case_name.format(part=part, stem=stem)
            found.pairs.append(SourcePair(name, part, images[key], masks[key]))
    if not images and not masks:
        found.problems.append(f"no images found; expected {dataset.layout} in SRC, its subfolders or the zip")
    return found
