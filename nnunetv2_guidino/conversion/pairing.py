"""Which image goes with which mask."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from nnunetv2_guidino.conversion.dataset import Dataset, SourcePair
from nnunetv2_guidino.conversion.sources import SourceFile, printable

LONGEST = 255  # bytes of a file's name
Key = tuple[str, str]  # part, stem
Files = dict[Key, SourceFile]


@dataclass
class Found:
    """What a listing of files holds for a data set."""

    pairs: list[SourcePair] = field(default_factory=list)
    split_files: list[SourceFile] = field(default_factory=list)
    ignored: list[SourceFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_pairs(dataset: Dataset, files: Iterable[SourceFile]) -> Found:
    """Pair images with masks by their stems. A file without its counterpart is a problem, and so are two pairs that
    would become one case."""
    found = Found()
    images, masks = _sort(dataset, files, found)
    if not images and not masks:
        found.problems.append(f"no images found; expected {dataset.layout} in SRC, its subfolders or the zip")
        return found
    images, masks = _without_endings(images, masks, found)
    for key in sorted(images.keys() | masks.keys()):
        part, stem = key
        if key not in masks:
            found.problems.append(f"{images[key]}: has no mask")
        elif key not in images:
            found.problems.append(f"{masks[key]}: is the mask of no image")
        else:
            name = dataset.case_name.format(part=part, stem=stem)
            found.pairs.append(SourcePair(name, part, images[key], masks[key]))
    found.problems += _problems_of_names(found.pairs)
    return found


def _sort(dataset: Dataset, files: Iterable[SourceFile], found: Found) -> tuple[Files, Files]:
    """The images and the masks among the files; the others go to `found`."""
    images: Files = {}
    masks: Files = {}
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
    return images, masks


def _without_endings(images: Files, masks: Files, found: Found) -> tuple[Files, Files]:
    """Take off what all names of one kind end with, as in a_0000.png and a_mask.png, where that pairs most of them."""
    best, best_pairs = ("", ""), len(images.keys() & masks.keys())
    if best_pairs >= min(len(images), len(masks)) / 2:
        return images, masks
    for image_ending in _endings(images):
        for mask_ending in _endings(masks):
            pairs = len(_shortened(images, image_ending).keys() & _shortened(masks, mask_ending).keys())
            # x_left and y_right would pair, were both cut: only where that leaves nothing over
            if image_ending and mask_ending and not 1 < pairs == len(images) == len(masks):
                continue
            if pairs > best_pairs:
                best, best_pairs = (image_ending, mask_ending), pairs
    if best_pairs < min(len(images), len(masks)) / 2:
        return images, masks
    for kind, ending in zip(("images", "masks"), best, strict=True):
        if ending:
            found.notes.append(f"the names of the {kind} end in {ending}, which is taken off to pair them")
    return _shortened(images, best[0]), _shortened(masks, best[1])


def _endings(files: Files) -> list[str]:
    """None, and what at least half of the names end with: one or two words after a separator."""
    counts: Counter[str] = Counter()
    for _, stem in files:
        counts.update(stem[match.start() :] for match in list(re.finditer(r"(?<=.)[-_. ]", stem))[-2:])
    return ["", *(ending for ending, count in counts.most_common(4) if count >= len(files) / 2)]


def _shortened(files: Files, ending: str) -> Files:
    """The files by their names without the ending; where two would then be one, all keep their names."""
    shortened = {(part, stem.removesuffix(ending)): file for (part, stem), file in files.items()}
    return shortened if len(shortened) == len(files) else files


def _problems_of_names(pairs: list[SourcePair]) -> list[str]:
    problems = []
    first: dict[str, SourcePair] = {}
    for pair in pairs:
        if pair.name in first:
            problems.append(f"{pair.image}: would be the case {pair.name}, as {first[pair.name].image} is")
        first.setdefault(pair.name, pair)
        if not pair.name.isprintable():
            problems.append(f"{pair.image}: its name has letters that cannot be printed ({printable(pair.name)})")
        elif len(f"{pair.name}_0000.png".encode()) > LONGEST:
            problems.append(f"{pair.image}: its name is too long for nnU-Net's, which is longer by _0000")
    return problems
