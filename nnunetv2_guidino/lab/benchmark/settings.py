"""A YAML file as checked values: every complaint names the file and the key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_text

MOST_VALUES = 10_000  # of a file, those that stand for others by an alias (*name) counted as often as they stand there


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would silently take the last, and aliases that grow too far."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if _count(node, {}) > MOST_VALUES:
            raise yaml.MarkedYAMLError(problem=f"it holds more than {MOST_VALUES} values")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        merged = "tag:yaml.org,2002:merge"  # <<, which may stand beside keys that it brings
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merged]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(problem=f"the key {key} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _count(node: Any, known: dict[int, int]) -> int:
    """The number of values in a node, each alias with all that it stands for."""
    if id(node) not in known:
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for entry in inner for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(node)]


def read_yaml(file: Path) -> Section:
    """The mapping in a YAML file.

    Raises:
        GuidinoError: If the file is not there, cannot be read, is no YAML, has a key twice, or holds something else.
    """
    try:
        content = yaml.load(read_text(file), _Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise GuidinoError(f"{file} is not a YAML file: {' '.join(str(error).split())}") from error
    return Section(file, "", content)


class Section:
    """A mapping in the file, asked key by key.

    Args:
        file: For the messages.
        path: Keys that lead here, each with a dot behind it; "" for the whole file.
        content: As YAML gave it.

    Raises:
        GuidinoError: If it is no mapping, or one of its keys is no text.
    """

    def __init__(self, file: Path, path: str, content: Any):
        self.file, self.path = file, path
        if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
            where = path.rstrip(".") or "the file"
            raise GuidinoError(f"{file}: {where} is {_shown(content)}; expected keys (texts) with values")
        self.content = dict(content)

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Raises GuidinoError for a key that is not known, with the one that was probably meant."""
        known = list(known)
        for key in self.content:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                advice = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
                raise GuidinoError(f"{self._where(key)} is unknown; {advice}")

    def section(self, key: str) -> Section:
        """The mapping below a key."""
        return Section(self.file, f"{self.path}{key}.", self.content[key])

    def text(self, key: str, default: str) -> str:
        """A text; raises GuidinoError for anything else."""
        value = self.content.get(key, default)
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, "a text")
        return value

    def whole(self, key: str) -> int | None:
        """A whole number from 1, None where the key is not there; raises GuidinoError for anything else."""
        value = self.content.get(key)
        if key in self.content and not _is_whole(value, 1):
            raise self.error(key, "a whole number, at least 1")
        return value

    def entries(self, key: str, default: list[Any], minimum: int, word: str) -> list[Any]:
        """A list, not empty, each entry once, of whole numbers or a word; one entry alone is such a list."""
        values = self._listed(key, default)
        if not all(value == word if isinstance(value, str) else _is_whole(value, minimum) for value in values):
            raise self.error(key, f"whole numbers, at least {minimum}, or {word}")
        return values

    def texts(self, key: str, default: list[str]) -> list[str]:
        """A list, not empty, of texts (numbers are taken as such), each once; one alone is such a list."""
        values = self._listed(key, default)
        if not all(isinstance(value, str) or _is_whole(value, 0) for value in values):
            raise self.error(key, "a list of names")
        return [str(value) for value in values]

    def _listed(self, key: str, default: list[Any]) -> list[Any]:
        given = self.content.get(key, default)
        values = given if isinstance(given, list) else [given]
        if not values:
            raise self.error(key, "at least one")
        for value in values:
            if values.count(value) > 1:
                raise GuidinoError(f"{self._where(key)} has {value} twice")
        return values

    def error(self, key: str, expected: str) -> GuidinoError:
        """What is wrong with the value of a key."""
        return GuidinoError(f"{self._where(key)} is {_shown(self.content.get(key))}; expected {expected}")

    def _where(self, key: str) -> str:
        return f"{self.file}: {self.path}{key}"


def _is_whole(value: Any, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
