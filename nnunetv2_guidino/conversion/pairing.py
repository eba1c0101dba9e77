"""Which image goes with which mask."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from nnunetv2_guidino.conversion.dataset import Dataset, SourcePair
from nnunetv2_guidino.conversion.sources import SourceFile
from nnunetv2_guidino.printable import printable

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
    images, masks = _without_affixes(images, masks, found)
    found.problems += _problems_of_pairing(images, masks)
    for part, stem in sorted(images.keys() & masks.keys()):
        name = dataset.case_name.format(part=part, stem=stem)
        found.pairs.append(SourcePair(name, part, images[part, stem], masks[part, stem]))
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


@dataclass(frozen=True)
class _Affix:
    """What the names of a kind begin or end with."""

    text: str = ""
    begins: bool = False

    def off(self, files: Files) -> Files:
        """The files by their names without it; where two would then be one, all keep their names."""
        cut = str.removeprefix if self.begins else str.removesuffix
        shortened = {(part, cut(stem, self.text)): file for (part, stem), file in files.items()}
        return shortened if len(shortened) == len(files) else files


def _without_affixes(images: Files, masks: Files, found: Found) -> tuple[Files, Files]:
    """Take off what all names of one kind begin or end with, as in a_0000.png, a_mask.png and mask_a.png, where that
    pairs most of them."""
    best, best_pairs = (_Affix(), _Affix()), len(images.keys() & masks.keys())
    enough = min(len(images), len(masks)) / 2
    if best_pairs >= enough:
        return images, masks
    for of_images in _affixes(images):
        for of_masks in _affixes(masks):
            pairs = len(of_images.off(images).keys() & of_masks.off(masks).keys())
            # x_left and y_right would pair, were both cut: only where that leaves nothing over
            if of_images.text and of_masks.text and not 1 < pairs == len(images) == len(masks):
                continue
            if pairs > best_pairs:
                best, best_pairs = (of_images, of_masks), pairs
    if best_pairs < enough:
        return images, masks
    for kind, affix in zip(("images", "masks"), best, strict=True):
        if affix.text:
            where = "begin with" if affix.begins else "end in"
            found.notes.append(f"the names of the {kind} {where} {affix.text}, which is taken off to pair them")
    return best[0].off(images), best[1].off(masks)


def _affixes(files: Files) -> list[_Affix]:
    """None, and what at least half of the names have before their first separator, or after their last ones."""
    counts: Counter[_Affix] = Counter()
    for _, stem in files:
        separators = list(re.finditer(r"(?<=.)[-_. ](?=.)", stem))
        counts.update(_Affix(stem[match.start() :]) for match in separators[-2:])
        counts.update(_Affix(stem[: match.end()], begins=True) for match in separators[:1])
    return [_Affix(), *(affix for affix, count in counts.most_common(6) if count >= len(files) / 2)]


def _problems_of_pairing(images: Files, masks: Files) -> list[str]:
    """A line for each file without its counterpart; one for all where no name is among both."""
    if len(images) > 1 and len(masks) > 1 and not images.keys() & masks.keys():
        image, mask = images[min(images)], masks[min(masks)]
        return [
            f"{image}: none of the {len(images)} images has a mask of its name; the masks have names such as {mask}. "
            "Name both alike"
        ]
    alone = [(key, f"{images[key]}: has no mask") for key in images.keys() - masks.keys()]
    alone += [(key, f"{masks[key]}: is the mask of no image") for key in masks.keys() - images.keys()]
    return [problem for _, problem in sorted(alone)]


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
