"""Check values from files; every error names the key, the value and what is expected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.printable import shown


@dataclass(frozen=True)
class Kind:
    """A kind of value: its description, such as "a text", and a function that returns True for values of it."""

    expected: str
    fits: Callable[[Any], Any]

    def error(self, where: str, value: Any) -> GuidinoError:
        """Return the error that the value at a place, such as "matrix.yaml: folds", is of another kind."""
        return GuidinoError(f"{where} is {shown(value)}; expected {self.expected}")

    def check(self, where: str, value: Any) -> Any:
        """Return the value; raise GuidinoError if it is of another kind."""
        if not self.fits(value):
            raise self.error(where, value)
        return value
