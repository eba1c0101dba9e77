"""Pair images with masks by their names."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import product

from nnunetv2_guidino.printable import printable
from nnunetv2_guidino.tools.conversion.dataset import Dataset, Report
from nnunetv2_guidino.tools.conversion.sources import SourceFile, SourcePair

LONGEST = 255  # bytes in the name of a file
Files = dict[tuple[str, str], SourceFile]  # by part and stem
Affix = tuple[str, str]  # beginning and ending of names; one of them is empty


def find_pairs(
    dataset: Dataset, files: Iterable[SourceFile], report: Report
) -> tuple[list[SourcePair], list[SourceFile]]:
    """Pair images with masks by their stems, and report problems and ignored files.

    A file without a counterpart is a problem, and so are two pairs that would become one case.

    Returns:
        The pairs, and the files that `Dataset.split` reads.
    """
    images, masks, split_files = _sort(dataset, files, report)
    if not images and not masks:
        report.problems.append(f"no images found; expected {dataset.layout} in SRC, its subfolders or the zip")
        return [], split_files
    images, masks = _strip_affixes(images, masks, report)
    report.problems += _problems_of_pairing(images, masks)
    pairs = [
        SourcePair(dataset.case_name.format(part=part, stem=stem), part, images[part, stem], masks[part, stem])
        for part, stem in sorted(images.keys() & masks.keys())
    ]
    report.problems += problems_of_names([(pair.name, pair.image) for pair in pairs], ".png")
    return pairs, split_files


def normalised(name: str) -> str:
    """Compose the accented letters of a file name, which macOS decomposes and other systems do not."""
    return unicodedata.normalize("NFC", name)


def _sort(dataset: Dataset, files: Iterable[SourceFile], report: Report) -> tuple[Files, Files, list[SourceFile]]:
    """Return the images, the masks and the files for the split, and note the ignored files of each folder."""
    images: Files = {}
    masks: Files = {}
    split_files = []
    ignored: dict[str, list[str]] = {}
    for file in files:
        for pattern, kind in ((dataset.image, images), (dataset.mask, masks)):
            if match := re.search(f"(?:^|/){pattern}$", file.path):
                key = (match.groupdict().get("part") or "", normalised(match["stem"]))
                if key in kind:
                    report.problems.append(f"{file}: has the same name as {kind[key]}; give SRC so that one is left")
                kind[key] = file
                break
        else:
            if re.search(f"(?:^|/){dataset.split_files}$", file.path):
                split_files.append(file)
            else:
                folder, _, name = printable(file.path).rpartition("/")
                ignored.setdefault(folder, []).append(name)
    for folder, names in ignored.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        report.notes.append(f"ignored in {folder}: {', '.join(names[:3])}{more}")
    return images, masks, split_files


def _strip_affixes(images: Files, masks: Files, report: Report) -> tuple[Files, Files]:
    """Remove a common beginning or ending of names, such as _0000, _mask or mask_, if most files then pair."""

    def count_pairs(affixes: tuple[Affix, Affix]) -> int:
        pairs = len(_strip(images, affixes[0]).keys() & _strip(masks, affixes[1]).keys())
        # with both affixes removed, x_left and y_right could pair: accept this only if no file stays alone
        return pairs if ("", "") in affixes or 1 < pairs == len(images) == len(masks) else 0

    enough = min(len(images), len(masks)) / 2
    if count_pairs((("", ""), ("", ""))) >= enough:
        return images, masks
    best = max(product(_affixes(images), _affixes(masks)), key=count_pairs)
    if count_pairs(best) < enough:
        return images, masks
    for kind, (beginning, ending) in zip(("images", "masks"), best, strict=True):
        if beginning or ending:
            affix = f"begin with {beginning}" if beginning else f"end in {ending}"
            report.notes.append(f"the names of the {kind} {affix}, which is removed to pair them")
    return _strip(images, best[0]), _strip(masks, best[1])


def _strip(files: Files, affix: Affix) -> Files:
    """Remove an affix from all names, unless two names would then be equal."""
    stripped = {
        (part, stem.removeprefix(affix[0]).removesuffix(affix[1])): file for (part, stem), file in files.items()
    }
    return stripped if len(stripped) == len(files) else files


def _affixes(files: Files) -> list[Affix]:
    """Return no affix, and the parts before the first or after the last separators that half of the names share."""
    counts: Counter[Affix] = Counter()
    for _, stem in files:
        separators = list(re.finditer(r"(?<=.)[-_. ](?=.)", stem))
        counts.update(("", stem[match.start() :]) for match in separators[-2:])
        counts.update((stem[: match.end()], "") for match in separators[:1])
    return [("", ""), *(affix for affix, count in counts.most_common(6) if count >= len(files) / 2)]


def _problems_of_pairing(images: Files, masks: Files) -> list[str]:
    """Return a line for each file without a counterpart, or one line if no names match at all."""
    if len(images) > 1 and len(masks) > 1 and not images.keys() & masks.keys():
        image, mask = images[min(images)], masks[min(masks)]
        return [
            f"{image}: none of the {len(images)} images has a mask of its name; the masks have names such as {mask}. "
            "Give an image and its mask the same name"
        ]
    alone = [(key, f"{images[key]}: has no mask") for key in images.keys() - masks.keys()]
    alone += [(key, f"{masks[key]}: is the mask of no image") for key in masks.keys() - images.keys()]
    return [problem for _, problem in sorted(alone)]


def problems_of_names(cases: Iterable[tuple[str, SourceFile]], ending: str) -> list[str]:
    """Return a line for each image that cannot be a case of nnU-Net by its name."""
    problems = []
    first: dict[str, SourceFile] = {}
    for name, image in cases:
        if first.setdefault(name, image) is not image:
            problems.append(f"{image}: would be the case {printable(name)}, like {first[name]}; rename one")
        if not name.isprintable():
            problems.append(f"{image}: its name has letters that cannot be printed ({printable(name)}); rename it")
        elif len(f"{name}_0000{ending}".encode()) > LONGEST:
            problems.append(f"{image}: its name is too long; with _0000{ending} it has more than {LONGEST} bytes")
    return problems
