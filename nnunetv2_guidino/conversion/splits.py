"""Splits that published lists give."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from nnunetv2_guidino.conversion.dataset import IMAGE_SUFFIX, SourcePair, Split


def read_split(files: Iterable[Path], pairs: Sequence[SourcePair], problems: list[str]) -> Split:
    """The split that published lists give: text files train…, val… and test… with a case per line, or one json."""
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
            contents = json.loads(text) if file.suffix == ".json" else {file.stem: text.splitlines()}
        except (OSError, ValueError) as error:
            problems.append(f"{file}: cannot be read as a list of cases: {error}")
            continue
        for title, names in contents.items():
            role = next((role for role in lists if title.lower().startswith(role)), None)
            if role is None:
                problems.append(f"{file}: {title!r} is none of train, val, test")
            else:
                stripped = (re.sub(rf"{IMAGE_SUFFIX}$", "", PurePosixPath(name.strip()).name) for name in names)
                lists[role] += [unicodedata.normalize("NFC", name) for name in stripped if name]

    known = {pair.name for pair in pairs}
    times = Counter(name for names in lists.values() for name in names)
    problems += [f"{name}: is in the lists of --split, but not in SRC" for name in sorted(times.keys() - known)]
    problems += [f"{name}: is in none of the lists of --split" for name in sorted(known - times.keys())]
    problems += [f"{name}: is {n} times in the lists of --split" for name, n in sorted(times.items()) if n > 1]
    test = frozenset(lists.pop("test"))
    return Split(test, (lists,) if lists["train"] and lists["val"] else ())
