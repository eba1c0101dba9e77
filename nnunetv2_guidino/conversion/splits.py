"""Splits that published lists give."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from nnunetv2_guidino.conversion.dataset import IMAGE_SUFFIX, Fold, SourcePair, Split
from nnunetv2_guidino.conversion.sources import MAX_BYTES
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json
from nnunetv2_guidino.printable import printable

FEWEST = 5  # training cases that nnU-Net can make its five folds of
LONGEST = 4096  # letters of a path
ROLES = ("train", "val", "test")


def read_split(files: Iterable[Path], pairs: Sequence[SourcePair], problems: list[str]) -> Split:
    """The split that published lists give. What does not fit is appended to `problems`.

    The lists are text files train…, val… and test… with a case per line, a JSON object with such keys, or nnU-Net's own
    splits_final.json, a list of folds.
    """
    lists: Fold = {role: [] for role in ROLES}
    folds: list[Fold] = []
    for file in files:
        try:
            content = _read_lists(file)
            if isinstance(content, list):
                folds += [_fold(fold, f"{file}: fold {position}") for position, fold in enumerate(content)]
            else:
                for title, names in content.items():
                    lists[_role(title, file)] += _names(names, f"{file}: {title}")
        except GuidinoError as error:
            problems.append(str(error))
    known = {pair.name for pair in pairs}
    if folds:
        return _split_of_folds(folds, lists, known, problems)
    _compare(Counter(name for names in lists.values() for name in names), known, problems)
    test = frozenset(lists.pop("test"))
    return Split(test, (lists,) if lists["train"] and lists["val"] else ())


def _read_lists(file: Path) -> dict[str, Any] | list[Any]:
    try:
        if file.exists() and not file.is_file():
            raise GuidinoError(f"{file}: is no regular file; expected a list of cases")
        if file.stat().st_size > MAX_BYTES:
            raise GuidinoError(f"{file}: is too large for a list of cases")
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise GuidinoError(f"{file}: cannot be read as a list of cases: {error}") from error
    if file.suffix.lower() != ".json":
        return {file.stem: text.splitlines()}
    return read_json(file, list) if text.lstrip().startswith("[") else read_json(file, dict)


def _role(title: str, file: Path) -> str:
    role = next((role for role in ROLES if title.lower().startswith(role)), None)
    if role is None:
        raise GuidinoError(f"{file}: {title!r} is none of train, val, test")
    return role


def _names(names: Any, where: str) -> list[str]:
    """The names of cases, from file names or paths too."""
    if isinstance(names, list) and any(isinstance(name, str) and len(name) > LONGEST for name in names):
        raise GuidinoError(f"{where}: has a line of more than {LONGEST} letters; expected names of cases")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise GuidinoError(f"{where}: expected a list of names of cases")
    stripped = (re.sub(rf"{IMAGE_SUFFIX}$", "", PurePosixPath(name.strip()).name) for name in names)
    return [unicodedata.normalize("NFC", name) for name in stripped if name]


def _fold(fold: Any, where: str) -> Fold:
    if not isinstance(fold, dict) or set(fold) != {"train", "val"}:
        raise GuidinoError(f"{where}: expected an object with the lists train and val, as in nnU-Net's own splits")
    names = {role: _names(fold[role], f"{where}, {role}") for role in ("train", "val")}
    if not all(names.values()):
        raise GuidinoError(f"{where}: train or val is empty")
    if both := sorted(set(names["train"]) & set(names["val"])):
        raise GuidinoError(f"{where}: {both[0]} is in train and in val")
    return names


def _split_of_folds(folds: list[Fold], lists: Fold, known: set[str], problems: list[str]) -> Split:
    if lists["train"] or lists["val"]:
        problems.append("--split: has nnU-Net's folds and lists for train or val too; expected one of these")
    in_folds = {name for fold in folds for names in fold.values() for name in names}
    _compare(Counter([*in_folds, *lists["test"]]), known, problems)
    return Split(frozenset(lists["test"]), tuple(folds))


def _compare(times: Counter[str], known: set[str], problems: list[str]) -> None:
    problems += [
        f"{printable(name)}: is in the lists of --split, but not in SRC" for name in sorted(times.keys() - known)
    ]
    problems += [f"{printable(name)}: is in none of the lists of --split" for name in sorted(known - times.keys())]
    problems += [
        f"{printable(name)}: is {n} times in the lists of --split" for name, n in sorted(times.items()) if n > 1
    ]


def advice_on_few(training: int, split: Split) -> list[str]:
    """What to know about so few training cases that nnU-Net cannot make its folds."""
    if split.folds or training >= FEWEST:
        return []
    return [
        f"{training} training cases are too few for nnU-Net's five folds, which need {FEWEST}; give your own by "
        "--split, or train on all of them: fold `all`"
    ]
