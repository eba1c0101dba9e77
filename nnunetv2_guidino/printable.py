"""Text from elsewhere (names, errors) as lines and columns that a terminal can show."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from nnunetv2_guidino.errors import GuidinoError

# Control characters (line ends, terminal sequences), halves of characters, separators of lines and paragraphs.
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


def printable(text: str) -> str:
    """Return the text with escapes for all characters that would break a line or drive a terminal."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def check_name(name: str, source: str) -> None:
    """Refuse a name that would break lines, tables or the screen.

    Raises:
        GuidinoError: If the name holds control characters or is not UTF-8.
    """
    if any(unicodedata.category(character) in UNPRINTABLE for character in name):
        raise GuidinoError(f"{source}: the name {name!a} holds a character that cannot be shown; rename it")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the error's type if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def shown(value: object) -> str:
    """Return a value as an error message shows it, cut after 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as aligned columns; the first row is the header, columns of numbers are aligned right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [all(cell[:1].isdigit() for cell in column[1:]) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (f"{cell:>{w}}" if r else f"{cell:<{w}}" for cell, w, r in zip(row, widths, right, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
