"""What a mask's file holds, as whole numbers: grey levels, indices of a palette, colours, transparency."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from nnunetv2_guidino.conversion.image_files import is_grey, on_black

Array = npt.NDArray[Any]
WINDOW = 5  # pixels: wider than the slope of an edge that JPEG or resizing has softened
FEW = 8  # levels or colours: more come of noise or soft edges
MAX_LEVEL = 2**16 - 1
SPREAD = 32  # between the channels of a grey pixel, as JPEG leaves it


def label_values(mask: Image.Image, coloured: bool) -> Array:
    """The values (height, width) of a label map: grey values, a palette's indices, or colours as 0xRRGGBB.

    Raises ValueError for a coloured map where grey values are asked for, and for fractions.
    """
    if coloured:
        return _packed(np.asarray(on_black(mask).convert("RGB")))
    if mask.mode.startswith(("I", "F")):
        return _whole_numbers(np.asarray(mask))
    if mask.mode not in ("1", "L", "P"):
        mask = on_black(mask)
        if not is_grey(mask):
            raise ValueError(f"is a coloured label map; {_advice(label_values(mask, coloured=True))}")
        mask = mask.convert("L")
    return np.asarray(mask).astype(np.int32)


def _advice(colours: Array) -> str:
    """How to name the colours (0xRRGGBB) that are not black, the most common first, at most FEW."""
    values, counts = np.unique(colours, return_counts=True)
    ordered = [colour for colour in values[np.argsort(-counts, kind="stable")].tolist() if colour]
    named = ",".join(f"NAME=#{colour:06x}" for colour in ordered[:FEW])
    if len(ordered) > FEW:
        return f"of its {len(ordered)} colours most come of noise, as JPEG's; save it without loss, with a colour each"
    return f"say which colour is what: --labels {named}, with background=#RRGGBB where that is not black"


def two_levels(mask: Image.Image) -> Array:
    """The levels (height, width) of a mask of foreground and background, from wherever the file keeps them.

    That may be its grey values, the brightness of its colour, its transparency, or the indices of a palette whose
    colours are all alike.

    Raises ValueError if the file says two different things, has several colours, or fractions.
    """
    if mask.mode.startswith(("I", "F")):
        levels = _whole_numbers(np.asarray(mask))
        return levels // 257 if levels.max() > 255 and not (levels % 257).any() else levels  # 8 bits stored as 16
    if mask.mode in ("1", "L") and not mask.has_transparency_data:
        return np.asarray(mask.convert("L"))
    if not mask.has_transparency_data:
        return _by_colour_or_index(mask, mask)
    plain = mask.convert("RGBA").convert("RGB")
    alpha = np.asarray(mask.convert("RGBA").getchannel("A"))
    if alpha.min() == alpha.max():  # says nothing
        return _by_colour_or_index(mask, plain)
    if _is_uniform(np.asarray(plain)):
        return alpha
    levels = _by_colour(on_black(mask).convert("RGB"))
    if _disagree(levels, alpha):
        raise ValueError("says one thing by its colours and another by its transparency; save it without the latter")
    return levels


def _whole_numbers(levels: Array) -> Array:
    if not np.isfinite(levels).all() or (levels != np.round(levels)).any():
        raise ValueError("holds fractions; expected whole numbers")
    if levels.min() < 0 or levels.max() > MAX_LEVEL:
        raise ValueError(f"holds values from {levels.min():g} to {levels.max():g}; expected 0 to {MAX_LEVEL}")
    return levels.astype(np.int32)


def _by_colour_or_index(mask: Image.Image, plain: Image.Image) -> Array:
    colours = plain.convert("RGB")
    if mask.mode == "P" and _is_uniform(np.asarray(colours)):
        return np.asarray(mask)
    return _by_colour(colours)


def _is_uniform(colours: Array) -> bool:
    return bool((colours == colours[0, 0]).all())


def _packed(colours: Array) -> Array:
    """Colours (height, width, 3) as 0xRRGGBB (height, width)."""
    return np.asarray(colours.astype(np.int32) @ np.array([2**16, 2**8, 1], np.int32))


def _distinct(colours: Array) -> Array:
    """The different colours (n, 3) of an image (height, width, 3)."""
    found = np.unique(_packed(colours))
    return np.stack([found >> 16, found >> 8 & 255, found & 255], axis=-1)


def _by_colour(picture: Image.Image) -> Array:
    """The brightness of a mask in one colour on black."""
    if not is_grey(picture):
        colours = np.asarray(picture)
        distinct = _distinct(colours)
        if (np.ptp(distinct, axis=-1) > SPREAD).any():
            _check_one_colour(colours, few=len(distinct) <= FEW)
    return np.asarray(picture.convert("L"))


def _check_one_colour(colours: Array, few: bool) -> None:
    """Raise ValueError if areas of a mask differ in which channels are lit: they are several colours.

    Noise lights channels at single pixels and edges only, so where there are more than a few colours a whole window
    counts.
    """
    top = int(colours.max())
    lit = colours > top / 3
    codes = np.where(colours.max(axis=-1) > top / 2, lit @ np.array([4, 2, 1]), 0)
    present = [code for code in range(1, 8) if (codes == code).any()]
    if not few and min(codes.shape) >= WINDOW:
        present = [code for code in present if in_windows(np.minimum, codes == code).any()]
    if len(present) > 1:
        what = "is no two-level mask: it has areas of several colours"
        raise ValueError(f"{what}. If they are classes, {_advice(_packed(colours))}")


def _disagree(first: Array, second: Array) -> bool:
    """Whether two readings of one mask differ by more than soft edges."""
    differ = (first > first.max() / 2) != (second > second.max() / 2)
    exact = all(len(np.unique(levels)) <= 2 for levels in (first, second))
    if exact or min(differ.shape) < WINDOW:
        return bool(differ.any())
    return bool(in_windows(np.minimum, differ).any())


def in_windows(extreme: np.ufunc, levels: Array) -> Array:
    """The minimum or maximum of each WINDOW × WINDOW window that lies within `levels`."""
    height, width = (length - WINDOW + 1 for length in levels.shape)
    rows = extreme.reduce([levels[start : start + height] for start in range(WINDOW)])
    return np.asarray(extreme.reduce([rows[:, start : start + width] for start in range(WINDOW)]))
