"""Masks in any encoding, read as labels."""

from __future__ import annotations

import numpy as np

from nnunetv2_guidino.conversion.image_files import decode, is_grey, on_black
from nnunetv2_guidino.conversion.sources import SourceFile

WINDOW = 5  # pixels: wider than the slope of an edge that JPEG or resizing has softened


def read_mask(file: SourceFile, values: tuple[int, ...] | None) -> tuple[np.ndarray, int]:
    """Labels (height, width), uint8, and the mask's range, which is the level of its foreground.

    Without `values` the levels 0…range are cut at half of the range: 0/1, 0/255, the two colours of a palette, and
    JPEG's noise around them. With `values`, label i + 1 is where the mask is values[i]; a palette's values are its
    indices.

    Raises ValueError for a third plateau, or for a value that is not named.
    """
    image = decode(file)
    if values is None:
        levels = np.asarray(on_black(image).convert("L"))
        top = _range(levels)
        return (levels > top / 2).astype(np.uint8), top
    if image.mode not in ("1", "L", "P"):
        image = on_black(image)
        if not is_grey(image):
            raise ValueError("is a coloured label map; expected grey values or a palette")
        image = image.convert("L")
    levels = np.asarray(image).astype(np.uint8)
    table = np.full(256, 255, np.uint8)
    table[[0, *values]] = range(len(values) + 1)
    labels = table[levels]
    if unnamed := np.unique(levels[labels == 255]).tolist():
        raise ValueError(f"holds the values {unnamed}, which --labels does not name")
    return labels, int(levels.max())


def _range(levels: np.ndarray) -> int:
    """The level of a two-level mask's foreground. Raises ValueError if the mask has a third plateau.

    JPEG and resizing also make levels between the two, but only near the ends of the range or on a slope: a 5 × 5
    window in the middle of the range that is flat to a 16th of it is neither; soft edges leave a few by chance. Label
    maps without noise are known by their few levels, each with an area of its own, wherever in the range they lie.
    """
    counts = np.bincount(levels.ravel(), minlength=256)
    used = np.flatnonzero(counts)
    top = int(used[-1])
    noisy = len(used) > 8
    plateaus = np.flatnonzero(counts >= levels.size / 100).tolist()
    if len(used) > 2 and (noisy or len(plateaus) <= 2) and min(levels.shape) >= WINDOW:
        minimum, maximum = _in_windows(np.minimum, levels), _in_windows(np.maximum, levels)
        brightest_area = int(minimum.max())
        if noisy and brightest_area > top / 2:  # JPEG overshoots beside edges
            top = brightest_area
        flat = (minimum >= top / 8) & (maximum <= top * 7 / 8) & (maximum - minimum <= top // 16)
        if np.count_nonzero(flat) > (levels.size / 2000 if noisy else 0):
            plateaus = [0, int(np.median(minimum[flat])), top]
        else:
            plateaus = []
    if len(plateaus) > 2:
        raise ValueError(
            f"is no two-level mask: it has areas at the levels {', '.join(map(str, plateaus))}. Is it a mask of "
            "several classes? `guidino convert folder --labels name=value,…` takes those"
        )
    return top


def _in_windows(extreme: np.ufunc, levels: np.ndarray) -> np.ndarray:
    """The minimum or maximum of each WINDOW × WINDOW window that lies within `levels`."""
    height, width = (length - WINDOW + 1 for length in levels.shape)
    rows = extreme.reduce([levels[start : start + height] for start in range(WINDOW)])
    return extreme.reduce([rows[:, start : start + width] for start in range(WINDOW)])
