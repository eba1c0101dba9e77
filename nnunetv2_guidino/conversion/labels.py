"""Labels as a user writes them."""

from __future__ import annotations

import re


def parse_labels(text: str) -> dict[str, int | None]:
    """'polyp' is one binarised label; 'polyp=1,tool=2' gives the values in the masks. Raises ValueError."""
    labels: dict[str, int | None] = {}
    for item in text.split(","):
        match = re.fullmatch(r"\s*([^=]*[^=\s])\s*(?:=\s*(\d+)\s*)?", item)
        if not match or match[1] in ("background", *labels) or (match[2] and not 1 <= int(match[2]) <= 255):
            raise ValueError(f"{item!r}: expected name=value with a new name and a value from 1 to 255")
        labels[match[1]] = int(match[2]) if match[2] else None
    values = list(labels.values())
    if len(set(values)) < len(values) or (None in values and len(values) > 1):
        raise ValueError(f"{text!r}: each of several labels needs a value of its own")
    return labels
