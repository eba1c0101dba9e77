"""Labels as a user writes them: polyp; polyp=1,tool=2; background=#ffffff,polyp=#ff0000."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.conversion.mask_levels import MAX_LEVEL
from nnunetv2_guidino.tools.conversion.masks import MaskReading, TwoLevels, Values

BACKGROUND, IGNORE = "background", "ignore"  # nnU-Net's names
MOST = 254  # labels have 8 bits; 0 is the background and 255 marks a value without a name


@dataclass(frozen=True)
class Labels:
    """The foreground labels 1, 2, … of a data set, and their encoding in its masks."""

    names: tuple[str, ...]
    reading: MaskReading

    @classmethod
    def parse(cls, text: str) -> Labels:
        """Parse `NAME` for masks of two levels, or `NAME=VALUE,…` for label maps.

        A value is a grey value (0 to 65535), an index of a palette, or a colour #RRGGBB. `background=VALUE` gives the
        value of the background if it is neither 0 nor black. With `background` and one other grey value, masks are cut
        half way between the two values. `ignore` becomes the last label, as nnU-Net requires.

        Raises:
            GuidinoError: If the text has another form.
        """
        values = _parse_values(text)
        background = values.pop(BACKGROUND, None)
        names = sorted(values, key=lambda name: name == IGNORE)
        if not names or names == [IGNORE]:
            raise GuidinoError(f"{text!r}: expected at least one label besides {BACKGROUND} and {IGNORE}")
        if len(names) > MOST:
            raise GuidinoError(f"{len(names)} labels are too many; expected at most {MOST}")
        given = [values[name] for name in names]
        if given == [None] and background is None:
            return cls(tuple(names), TwoLevels())
        texts = [value for value in (background or "0", *given) if value is not None]
        nothing, *numbers = (int(value[1:], 16) if value.startswith("#") else int(value) for value in texts)
        if len(numbers) < len(given) or len({nothing, *numbers}) < len(texts):
            hint = f" (0 is the {BACKGROUND} unless {BACKGROUND}=VALUE is given)" if not background else ""
            raise GuidinoError(f"{text!r}: each of several labels needs its own value{hint}")
        coloured = {value.startswith("#") for value in (texts if background else texts[1:])}
        if len(coloured) > 1:
            raise GuidinoError(f"{text!r}: mixes colours and grey values; expected one kind")
        if background and len(numbers) == 1 and coloured == {False}:
            return cls(tuple(names), TwoLevels(background=nothing, foreground=numbers[0]))
        return cls(tuple(names), Values(tuple(numbers), nothing, coloured == {True}))


def _parse_values(text: str) -> dict[str, str | None]:
    values: dict[str, str | None] = {}
    for item in text.split(","):
        match = re.fullmatch(r"\s*([^=]*[^=\s])\s*(?:=\s*(\d+|#[0-9a-fA-F]{6})\s*)?", item)
        if not match or not match[1].isprintable() or match[1] in values or (match[1] == BACKGROUND and not match[2]):
            raise GuidinoError(f"{item!r}: expected name=value with a new name, and a value such as 1 or #ff0000")
        if match[2] and match[2].isdecimal() and int(match[2]) > MAX_LEVEL:
            raise GuidinoError(f"{item!r}: expected a value from 0 to {MAX_LEVEL}")
        values[match[1]] = match[2]
    return values
