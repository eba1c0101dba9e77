"""Read the content of a mask's file as whole numbers: grey levels, palette indices, colours, transparency."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from nnunetv2_guidino.tools.conversion.image_files import is_grey, on_black

Array = npt.NDArray[Any]
WINDOW = 5  # pixels; wider than an edge that JPEG or resizing has softened
FEW = 8  # levels or colours; noise and soft edges make more
MAX_LEVEL = 2**16 - 1
SPREAD = 32  # JPEG separates the channels of a grey pixel by less


def label_values(mask: Image.Image, coloured: bool) -> Array:
    """Return the values (height, width) of a label map: grey values, palette indices, or colours as 0xRRGGBB.

    Raises ValueError for a coloured map without `coloured`, and for fractions.
    """
    if coloured:
        return _packed(mask)
    if mask.mode.startswith(("I", "F")):
        return _whole_numbers(np.asarray(mask))
    if mask.mode not in ("1", "L", "P"):
        mask = on_black(mask)
        if not is_grey(mask):
            raise ValueError(f"is a coloured label map; {_colour_advice(_packed(mask))}")
        mask = mask.convert("L")
    return np.asarray(mask).astype(np.int32)


def two_levels(mask: Image.Image) -> Array:
    """Return the levels (height, width) of a mask of foreground and background.

    The levels are the grey values, the brightness of one colour, the transparency, or the indices of a palette that has
    only one colour.

    Raises ValueError if colours and transparency disagree, and for several colours or fractions.
    """
    if mask.mode.startswith(("I", "F")):
        levels = _whole_numbers(np.asarray(mask))
        return levels // 257 if levels.max() > 255 and not (levels % 257).any() else levels  # 8 bits stored as 16
    alpha = np.asarray(mask.convert("RGBA").getchannel("A"))
    is_transparent = alpha.min() < alpha.max()  # a constant transparency means nothing
    colours = (mask.convert("RGBA") if mask.has_transparency_data else mask).convert("RGB")
    if (np.asarray(colours) == np.asarray(colours)[0, 0]).all():
        if is_transparent:
            return alpha
        if mask.mode == "P":
            return np.asarray(mask)
    levels = _brightness(on_black(mask).convert("RGB") if is_transparent else colours)
    if is_transparent and _disagree(levels, alpha):
        raise ValueError("has colours and transparency that differ; save it without transparency")
    return levels


def _whole_numbers(levels: Array) -> Array:
    if not np.isfinite(levels).all() or (levels != np.round(levels)).any():
        raise ValueError("holds fractions; expected whole numbers")
    if levels.min() < 0 or levels.max() > MAX_LEVEL:
        raise ValueError(f"holds values from {levels.min():g} to {levels.max():g}; expected 0 to {MAX_LEVEL}")
    return levels.astype(np.int32)


def _packed(mask: Image.Image) -> Array:
    """Return the colours (height, width) of a mask as 0xRRGGBB."""
    return np.asarray(on_black(mask).convert("RGB")) @ np.array([2**16, 2**8, 1], np.int32)


def _brightness(picture: Image.Image) -> Array:
    """Return the brightness (height, width) of an RGB mask in one colour on black.

    Raises ValueError if different channels are lit in different areas: the mask has several colours. Noise lights
    channels only at single pixels and edges, so a mask with many colours needs a whole window of one colour.
    """
    colours = np.asarray(picture)
    if not is_grey(picture) and np.ptp(colours, axis=-1).max() > SPREAD:
        top, packed = int(colours.max()), _packed(picture)
        lit = np.where(colours.max(axis=-1) > top / 2, (colours > top / 3) @ np.array([4, 2, 1]), 0)
        present = [lit == code for code in range(1, 8) if (lit == code).any()]
        if len(np.unique(packed)) > FEW and min(lit.shape) >= WINDOW:
            present = [where for where in present if in_windows(np.minimum, where).any()]
        if len(present) > 1:
            fault = "is no two-level mask: it has areas of several colours"
            raise ValueError(f"{fault}. If they are classes, {_colour_advice(packed)}")
    return np.asarray(picture.convert("L"))


def _colour_advice(colours: Array) -> str:
    """Return how to name colours (0xRRGGBB) other than black in --labels, the most frequent first, at most FEW."""
    values, counts = np.unique(colours, return_counts=True)
    ordered = [colour for colour in values[np.argsort(-counts, kind="stable")].tolist() if colour]
    named = ",".join(f"NAME=#{colour:06x}" for colour in ordered[:FEW])
    if len(ordered) > FEW:
        return f"most of its {len(ordered)} colours are noise, as in JPEG; save it without loss, one colour per class"
    return f"name the colour of each class: --labels {named}, with background=#RRGGBB if the background is not black"


def _disagree(first: Array, second: Array) -> bool:
    """Return whether two readings of one mask differ by more than soft edges."""
    differ = (first > first.max() / 2) != (second > second.max() / 2)
    is_exact = all(len(np.unique(levels)) <= 2 for levels in (first, second))
    if not is_exact and min(differ.shape) >= WINDOW:
        differ = in_windows(np.minimum, differ)
    return bool(differ.any())


def in_windows(extreme: np.ufunc, levels: Array) -> Array:
    """Return the minimum or maximum of each WINDOW × WINDOW window inside `levels`."""
    height, width = (length - WINDOW + 1 for length in levels.shape)
    rows = extreme.reduce([levels[start : start + height] for start in range(WINDOW)])
    return np.asarray(extreme.reduce([rows[:, start : start + width] for start in range(WINDOW)]))
