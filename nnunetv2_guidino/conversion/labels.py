"""Labels as a user writes them: polyp; polyp=1,tool=2; background=#ffffff,polyp=#ff0000."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nnunetv2_guidino.conversion.mask_levels import MAX_LEVEL
from nnunetv2_guidino.conversion.masks import MaskReading, TwoLevels, Values
from nnunetv2_guidino.errors import GuidinoError

BACKGROUND, IGNORE = "background", "ignore"  # nnU-Net's names for what is nothing, and for what does not count
MOST = 254  # labels: they are written with 8 bits, and 255 is kept for what has no name


@dataclass(frozen=True)
class Labels:
    """The foreground labels 1, 2, … of a data set, and how its masks tell them."""

    names: tuple[str, ...]
    reading: MaskReading

    @classmethod
    def parse(cls, text: str) -> Labels:
        """Read `NAME`, for masks of two levels, or `NAME=VALUE,…`, for label maps.

        A value is a grey value (0 to 65535), an index of a palette, or a colour #RRGGBB. `background=VALUE` says what
        the background is, where it is not 0 or black; with one more label, masks are then cut half way between the two.
        `ignore` becomes the last label, as nnU-Net wants it.

        Raises:
            GuidinoError: If the text is none of this.
        """
        values = _values(text)
        background = values.pop(BACKGROUND, None)
        names = sorted(values, key=lambda name: name == IGNORE)
        if not names or names == [IGNORE]:
            raise GuidinoError(f"{text!r}: expected at least one label besides {BACKGROUND} and {IGNORE}")
        if len(names) > MOST:
            raise GuidinoError(f"{len(names)} labels are too many; expected at most {MOST}")
        given = [values[name] for name in names]
        if given == [None] and background is None:
            return cls(tuple(names), TwoLevels())
        plain = [value for value in (background or "0", *given) if value is not None]
        if len(plain) < len(given) + 1 or len({_number(value) for value in plain}) < len(plain):
            of_zero = f" (0 is the {BACKGROUND}'s unless {BACKGROUND}=VALUE says otherwise)" if not background else ""
            raise GuidinoError(f"{text!r}: each of several labels needs a value of its own{of_zero}")
        coloured = [value.startswith("#") for value in (plain if background else plain[1:])]
        if any(coloured) and not all(coloured):
            raise GuidinoError(f"{text!r}: has colours and grey values; expected one kind")
        nothing, *numbers = (_number(value) for value in plain)
        if background and len(numbers) == 1 and not any(coloured):
            return cls(tuple(names), TwoLevels(background=nothing, foreground=numbers[0]))
        return cls(tuple(names), Values(tuple(numbers), nothing, any(coloured)))


def _values(text: str) -> dict[str, str | None]:
    values: dict[str, str | None] = {}
    for item in text.split(","):
        match = re.fullmatch(r"\s*([^=]*[^=\s])\s*(?:=\s*(\d+|#[0-9a-fA-F]{6})\s*)?", item)
        if not match or not match[1].isprintable() or match[1] in values or (match[1] == BACKGROUND and not match[2]):
            raise GuidinoError(f"{item!r}: expected name=value with a new name, and a value as 1 or #ff0000")
        if match[2] and match[2].isdecimal() and int(match[2]) > MAX_LEVEL:
            raise GuidinoError(f"{item!r}: expected a value from 0 to {MAX_LEVEL}")
        values[match[1]] = match[2]
    return values


def _number(value: str) -> int:
    return int(value[1:], 16) if value.startswith("#") else int(value)
