"""Read splits from published lists."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json, read_text
from nnunetv2_guidino.printable import printable
from nnunetv2_guidino.tools.conversion.dataset import IMAGE_SUFFIX, Fold, Split
from nnunetv2_guidino.tools.conversion.pairing import normalised
from nnunetv2_guidino.tools.conversion.sources import MAX_BYTES, SourcePair

FEWEST = 5  # training cases that nnU-Net's five folds need
LONGEST = 4096  # letters of a path
ROLES = ("train", "val", "test")


def read_split(files: Iterable[Path], pairs: Sequence[SourcePair], problems: list[str]) -> Split:
    """Read a split from lists, and append to `problems` where they do not match the pairs.

    The lists are text files train…, val… and test… with a case per line, a JSON object with such keys, or nnU-Net's own
    splits_final.json, a list of folds.
    """
    lists: Fold = {role: [] for role in ROLES}
    folds: list[Fold] = []
    for file in files:
        try:
            _add_lists(file, lists, folds)
        except GuidinoError as error:
            problems.append(str(error))
    times = Counter(name for names in lists.values() for name in names)
    if folds:
        if lists["train"] or lists["val"]:
            problems.append("--split: has nnU-Net's folds and lists for train or val too; expected one of these")
        in_folds = {name for fold in folds for names in fold.values() for name in names}
        times = Counter([*in_folds, *lists["test"]])
    elif lists["train"] and lists["val"]:
        folds = [{"train": lists["train"], "val": lists["val"]}]
    known = {pair.name for pair in pairs}
    for names, problem in (
        (times.keys() - known, "in the lists of --split, but not in SRC"),
        (known - times.keys(), "in none of the lists of --split"),
        ({name for name, count in times.items() if count > 1}, "{} times in the lists of --split"),
    ):
        problems += [f"{printable(name)}: is {problem.format(times[name])}" for name in sorted(names)]
    return Split(frozenset(lists["test"]), tuple(folds))


def _add_lists(file: Path, lists: Fold, folds: list[Fold]) -> None:
    """Add the names in a file to the lists, or its folds to the folds."""
    if file.is_file() and file.stat().st_size > MAX_BYTES:
        raise GuidinoError(f"{file} is too large for a list of cases")
    try:
        text = read_text(file)
    except ValueError as error:
        raise GuidinoError(f"{file} cannot be read as a list of cases: {error}") from error
    if file.suffix.lower() == ".json" and text.lstrip().startswith("["):
        folds += [_read_fold(fold, f"{file}: fold {position}") for position, fold in enumerate(read_json(file, list))]
        return
    content = read_json(file, dict) if file.suffix.lower() == ".json" else {file.stem: text.splitlines()}
    for title, names in content.items():
        role = next((role for role in ROLES if title.lower().startswith(role)), None)
        if role is None:
            raise GuidinoError(f"{file}: {title!r} is none of train, val, test")
        lists[role] += _read_names(names, f"{file}: {title}")


def _read_names(names: Any, where: str) -> list[str]:
    """Return the names of cases, which may be given as file names or paths."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise GuidinoError(f"{where}: expected a list of names of cases")
    if any(len(name) > LONGEST for name in names):
        raise GuidinoError(f"{where}: has a line of more than {LONGEST} letters; expected names of cases")
    stems = (re.sub(rf"{IMAGE_SUFFIX}$", "", PurePosixPath(name.strip()).name) for name in names)
    return [normalised(stem) for stem in stems if stem]


def _read_fold(fold: Any, where: str) -> Fold:
    if not isinstance(fold, dict) or set(fold) != {"train", "val"}:
        raise GuidinoError(f"{where}: expected an object with the lists train and val, as in nnU-Net's own splits")
    names = {role: _read_names(fold[role], f"{where}, {role}") for role in ("train", "val")}
    if not all(names.values()):
        raise GuidinoError(f"{where}: train or val is empty")
    if both := sorted(set(names["train"]) & set(names["val"])):
        raise GuidinoError(f"{where}: {both[0]} is in train and in val")
    return names
