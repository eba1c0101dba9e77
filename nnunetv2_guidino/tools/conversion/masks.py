"""Turn masks into labels: by named values, or by one cut for the whole data set.

One mask alone does not show where to cut: thin structures with soft edges reach the level of the foreground in some
masks only. So each mask gives `Evidence`, and `decide_cut` derives one rule from all of it, or says why there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from nnunetv2_guidino.tools.conversion.mask_levels import FEW, WINDOW, Array, in_windows, label_values, two_levels
from nnunetv2_guidino.tools.conversion.sources import SourceFile

CLEAR = 1 / 4  # at least this share of the visible pixels is bright where masks have a foreground, even a thin one


@dataclass(frozen=True)
class Values:
    """Label maps: label i + 1 is where the mask is `values[i]`, 0 where it is `background`."""

    values: tuple[int, ...]
    background: int = 0
    coloured: bool = False  # values are 0xRRGGBB

    def labels(self, mask: Image.Image) -> Array:
        """Return the labels (height, width), uint8. Raises ValueError for a value without a name."""
        found = label_values(mask, self.coloured)
        labels = np.full(found.shape, 255, np.uint8)
        for label, value in enumerate((self.background, *self.values)):
            labels[found == value] = label
        if unnamed := np.unique(found[labels == 255]).tolist():
            shown = ", ".join(map(self._text, unnamed[:10]))
            more = f" and {len(unnamed) - 10} more" if len(unnamed) > 10 else ""
            kind = "colours" if self.coloured else "values"
            raise ValueError(f"holds the {kind} [{shown}]{more}, which --labels does not name")
        return labels

    def named(self, labels: Sequence[str]) -> str:
        """Return the names and values in the form of --labels."""
        return ", ".join(f"{label}={self._text(value)}" for label, value in zip(labels, self.values, strict=True))

    def _text(self, value: int) -> str:
        return f"#{value:06x}" if self.coloured else str(value)


@dataclass(frozen=True)
class TwoLevels:
    """Masks of background and foreground, which lies above `cut`; None: `decide_cut` has to decide it.

    `background` and `foreground` are the two levels if the user named both; the foreground may be the darker one.
    """

    cut: float | None = None
    background: int = 0
    foreground: int | None = None

    def levels(self, mask: Image.Image) -> Array:
        """Return the distance (height, width) from the level of the background towards that of the foreground."""
        levels = two_levels(mask)
        if self.foreground is None:
            return levels
        sign = 1 if self.foreground > self.background else -1
        return np.asarray(np.clip((levels.astype(np.int32) - self.background) * sign, 0, None))

    def labels(self, mask: Image.Image) -> Array:
        """Return the labels 0 and 1 (height, width), uint8; `cut` must be decided. Raises ValueError."""
        assert self.cut is not None
        return np.asarray(self.levels(mask) > self.cut).astype(np.uint8)


MaskReading = Values | TwoLevels
TWO_LEVELS = TwoLevels()


@dataclass(frozen=True)
class Evidence:
    """The levels of one mask, as far as they matter for the cut."""

    lowest: int
    highest: int
    levels: int  # number of levels
    area: int | None  # level of the foreground, if flat areas or few levels show it
    visible: int  # pixels from a quarter of `highest` on
    bright: int  # pixels from three quarters of `highest` on
    share: float  # of pixels above half of `highest`

    @property
    def is_one_level(self) -> bool:
        """True if the mask does not show two levels."""
        return self.highest - self.lowest <= (0 if self.levels <= FEW else self.highest / 8)

    def labels(self, cut: float) -> frozenset[int]:
        """Return the labels 0 and 1 that the mask has by a cut."""
        return frozenset({int(self.lowest > cut), int(self.highest > cut)})


def examine(levels: Array, two_only: bool = True) -> Evidence:
    """Examine levels (height, width). Raises ValueError if a mask has a third plateau, unless not `two_only`.

    JPEG and resizing also make levels between the two, but only near the ends of the range or on a slope. A third
    plateau is a 5 × 5 window in the middle of the range that is flat to a 16th of it; soft edges make a few by chance.
    A label map without noise has few levels anywhere in the range, each with an area.
    """
    counts = np.bincount(levels.ravel())
    used = np.flatnonzero(counts)
    lowest, highest = int(used[0]), int(used[-1])
    noisy = len(used) > FEW
    top, area = highest, None if noisy else highest
    plateaus = np.flatnonzero(counts >= levels.size / 100).tolist()
    if len(used) > 2 and (noisy or len(plateaus) <= 2) and min(levels.shape) >= WINDOW:
        minimum, maximum = in_windows(np.minimum, levels), in_windows(np.maximum, levels)
        if noisy:
            area = _foreground_area(levels, minimum, maximum)
            top = area or highest
        flat = (minimum >= top / 8) & (maximum <= top * 7 / 8) & (maximum - minimum <= top // 16)
        is_plateau = np.count_nonzero(flat) > (levels.size / 2000 if noisy else 0)
        plateaus = [0, int(np.median(minimum[flat])), top] if is_plateau else []
    if two_only and len(plateaus) > 2:
        names = ",".join(f"NAME={level}" for level in plateaus if level)
        advice = "save it without noise and name its levels with --labels" if noisy else f"name them: --labels {names}"
        raise ValueError(
            f"is no two-level mask: it has areas at the levels {', '.join(map(str, plateaus))}. If these are classes, "
            f"{advice}; if they are soft edges, give the cut: --cut LEVEL"
        )
    visible, bright = (int(np.count_nonzero(levels >= highest * part)) for part in (1 / 4, 3 / 4))
    share = np.count_nonzero(levels > highest / 2) / levels.size
    return Evidence(lowest, highest, len(used), area, visible, bright, share)


def _foreground_area(levels: Array, minimum: Array, maximum: Array) -> int | None:
    """Return the level of the brightest flat areas; None if there are no more than thin structures make by chance.

    The brightest pixel is less reliable: JPEG overshoots beside edges.
    """
    half = int(levels.max()) / 2
    flat = (minimum > half) & (maximum - minimum <= half / 4)
    if np.count_nonzero(flat) < np.count_nonzero(levels > half) / 20:
        return None
    return int(minimum[flat].max())


def decide_cut(masks: Sequence[tuple[SourceFile, Evidence]], reading: TwoLevels) -> tuple[TwoLevels, str, list[str]]:
    """Decide from all masks of a data set where to cut them.

    Returns:
        The reading with a cut, the rule in words, and the problems that leave the rule unclear.
    """
    if reading.cut is not None:
        return reading, f"cut at {reading.cut:g} as asked for", []
    if (foreground := reading.foreground) is not None:
        side = "above" if foreground > reading.background else "below"
        rule = f"foreground is {side} {(foreground + reading.background) / 2:g}, as --labels says"
        return replace(reading, cut=abs(foreground - reading.background) / 2), rule, []
    lit = [(file, found) for file, found in masks if found.highest]
    problems = _without_background(lit)
    clear = sorted(found.area for _, found in lit if found.area and not found.is_one_level)
    if clear:
        top: int = clear[-1] if all(found.levels <= FEW for _, found in lit) else clear[len(clear) // 2]
        problems += _other_encodings(lit, top)
    else:
        top = max((found.highest for _, found in lit), default=0)
        problems += _unclear(lit)
    edges = "" if all(found.levels <= 2 for _, found in lit) else ", with soft or noisy edges"
    rule = f"levels 0 and {top}{edges}; all cut at {top / 2:g}, foreground is brighter"
    return replace(reading, cut=top / 2), rule, problems


def _without_background(lit: Sequence[tuple[SourceFile, Evidence]]) -> list[str]:
    problems = [
        f"{file}: has the levels {found.lowest} and {found.highest}, neither of them 0; name both: "
        f"--labels background={found.lowest},NAME={found.highest}, or the reverse"
        for file, found in lit
        if found.lowest > found.highest / 8 and not found.is_one_level
    ]
    if lit and all(found.is_one_level for _, found in lit):
        problems.append(
            f"{lit[0][0]}: all pixels are {lit[0][1].highest}, and no mask has both foreground and background; give "
            "the cut: --cut LEVEL"
        )
    return problems


def _other_encodings(lit: Sequence[tuple[SourceFile, Evidence]], top: int) -> list[str]:
    """Return a problem for each mask that ends at another level: a 1 among masks of 0 and 255 may be either label."""
    example = next(file for file, found in lit if (found.area or 0) >= top)
    exact = any(found.levels <= 2 and found.area == top for _, found in lit)
    problems = []
    for file, found in lit:
        tolerance = top / 4 if found.levels > FEW else 0 if found.levels <= 2 and exact else top / 8
        level = found.area or found.highest
        # thin and soft structures reach the level only here and there, and JPEG overshoots it a little
        if abs(level - top) > tolerance if found.area else not top / 2 < level <= top * 5 / 4:
            problems.append(
                f"{file}: its levels end at {level}, those of {example} at {top}; expected one encoding. If these are "
                "classes, name them: --labels NAME=VALUE,…; if not, give the cut: --cut LEVEL"
            )
    return problems


def _unclear(lit: Sequence[tuple[SourceFile, Evidence]]) -> list[str]:
    visible, bright = (sum(getattr(found, name) for _, found in lit) for name in ("visible", "bright"))
    if not lit or bright >= CLEAR * visible or all(found.is_one_level for _, found in lit):
        return []
    return [
        f"{lit[0][0]}: no mask has a clear level of foreground; only {bright / visible:.0%} of the pixels that are not "
        "dark are near the brightest level; give the cut: --cut LEVEL"
    ]
