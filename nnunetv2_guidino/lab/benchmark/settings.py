"""Read a YAML file and check its values; every error names the file and the key."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from nnunetv2_guidino import bounds, lists
from nnunetv2_guidino.checks import Kind
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_text

MOST_VALUES = 10_000  # in a file; the values behind an alias (*name) count each time that it is used
MAPPING = Kind(
    "keys (texts) with values",
    lambda value: isinstance(value, Mapping) and all(isinstance(key, str) for key in value),
)
TEXT = Kind("a text", lambda value: isinstance(value, str) and value.strip())
NAME = Kind("a name, not a path", lambda value: isinstance(value, str) and _is_name(value))
NAMES = Kind("a list of names, not of paths", lambda value: type(value) in (str, int) and _is_name(str(value)))
COUNT = Kind(f"a whole number, {bounds.COUNT}", lambda value: _is_whole(value, bounds.COUNT))
COUNT_OR_ALL = Kind(
    f"whole numbers, {bounds.COUNT}, or all", lambda value: value == "all" or _is_whole(value, bounds.COUNT)
)
FOLD = Kind(f"whole numbers, {bounds.FOLD}, or all", lambda value: value == "all" or _is_whole(value, bounds.FOLD))
SEED = Kind(f"whole numbers, {bounds.SEED}, or none", lambda value: value == "none" or _is_whole(value, bounds.SEED))


def _is_name(text: str) -> bool:
    return re.fullmatch(r"\w[\w.+-]*", text) is not None


def _is_whole(value: Any, within: bounds.Range) -> bool:
    return type(value) is int and value in within


class _Loader(yaml.SafeLoader):
    """Refuse text that YAML reads in an unexpected way: keys that stand twice, octal numbers, aliases that grow."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if _count(node, {}) > MOST_VALUES:
            raise yaml.MarkedYAMLError(problem=f"it holds more than {MOST_VALUES} values")
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value: int = super().construct_yaml_int(node)
        if node.value != str(value):  # YAML 1.1 reads 027 as octal, 15:01 as minutes, 1_0 as 10
            decimal = node.value.lstrip("0") if node.value.isdecimal() else value
            problem = f"{node.value} is not a decimal number, and YAML reads it as {value}; write {decimal}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        merged = "tag:yaml.org,2002:merge"  # <<, which may stand beside keys that it brings
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merged]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(problem=f"the key {key} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _count(node: Any, known: dict[int, int]) -> int:
    """Return the number of values in a node, each alias with everything that it stands for."""
    if id(node) not in known:
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for entry in inner for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(node)]


def read_yaml(file: Path) -> Section:
    """Return the mapping in a YAML file.

    Raises:
        GuidinoError: If the file does not exist, cannot be read, is not YAML, has a key twice, or holds no mapping.
    """
    try:
        content = yaml.load(read_text(file), _Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise GuidinoError(f"{file} is not a YAML file: {' '.join(str(error).split())}") from error
    return Section(file, "", content)


class Section:
    """A mapping in the file, whose values are checked when they are read.

    Args:
        file: File for error messages.
        path: Keys that lead to the mapping, each with a dot behind it; "" for the whole file.
        content: Content as YAML gives it.

    Raises:
        GuidinoError: If the content is no mapping, or one of its keys is no text.
    """

    def __init__(self, file: Path, path: str, content: Any):
        self.file, self.path = file, path
        self.content = dict(MAPPING.check(f"{file}: {path.rstrip('.') or 'the file'}", content))

    def check_keys(self, known: Collection[str]) -> None:
        """Refuse an unknown key; the GuidinoError names the nearest known key, or all."""
        for key in self.content:
            if key not in known:
                advice = lists.did_you_mean(key, known) or f"; known are {', '.join(known)}"
                raise GuidinoError(f"{self.where(key)} is unknown{advice}")

    def section(self, key: str) -> Section:
        """Return the mapping below a key."""
        return Section(self.file, f"{self.path}{key}.", self.content[key])

    def value(self, key: str, kind: Kind, default: Any = None) -> Any:
        """Return the value of a key, `default` if the key is missing; raise GuidinoError if it is of another kind."""
        return kind.check(self.where(key), self.content[key]) if key in self.content else default

    def values(self, key: str, kind: Kind, default: list[Any]) -> list[Any]:
        """Return a list of different values; a single value counts as a list.

        Raises:
            GuidinoError: If the list is empty, has a value twice, or one of another kind.
        """
        given = self.content.get(key, default)
        values = given if isinstance(given, list) else [given]
        if not values:
            raise Kind("at least one", bool).error(self.where(key), given)
        for value in values:
            if values.count(value) > 1:
                raise GuidinoError(f"{self.where(key)} has {value} twice")
            if not kind.fits(value):
                raise kind.error(self.where(key), given)
        return values

    def where(self, key: str) -> str:
        """Return file and key for error messages."""
        return f"{self.file}: {self.path}{key}"

    @contextmanager
    def errors_at(self, key: str) -> Iterator[None]:
        """Put file and key before errors about the value of a key."""
        try:
            yield
        except GuidinoError as error:
            raise GuidinoError(f"{self.where(key)}: {error}") from error
