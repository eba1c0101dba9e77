"""Masks as labels: by named values, or cut at one level for the whole data set.

Where one mask of a set is cut says nothing about the mask alone: thin structures with soft edges reach their level in
some masks and not in others. So every mask gives `Evidence`, and `decide_cut` makes one rule of all of it, or says what
keeps it from being one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from nnunetv2_guidino.conversion.mask_levels import FEW, WINDOW, Array, in_windows, label_values, two_levels
from nnunetv2_guidino.conversion.sources import SourceFile

CLEAR = 1 / 4  # of the visible pixels, at least so many are bright where a mask has a foreground, thin as it may be


@dataclass(frozen=True)
class Values:
    """Label maps: label i + 1 is where the mask is `values[i]`, 0 where it is `background`."""

    values: tuple[int, ...]
    background: int = 0
    coloured: bool = False  # values are 0xRRGGBB

    def labels(self, mask: Image.Image) -> Array:
        """The labels (height, width), uint8. Raises ValueError for a value that is not named."""
        found = label_values(mask, self.coloured)
        labels = np.full(found.shape, 255, np.uint8)
        for label, value in enumerate((self.background, *self.values)):
            labels[found == value] = label
        if unnamed := np.unique(found[labels == 255]).tolist():
            shown = ", ".join(f"#{value:06x}" if self.coloured else str(value) for value in unnamed[:10])
            more = f" and {len(unnamed) - 10} more" if len(unnamed) > 10 else ""
            what = "colours" if self.coloured else "values"
            raise ValueError(f"holds the {what} [{shown}]{more}, which --labels does not name")
        return labels

    def named(self, labels: Sequence[str]) -> str:
        """The values beside the names of `labels`, as --labels takes them."""
        shown = [f"#{value:06x}" if self.coloured else str(value) for value in self.values]
        return ", ".join(f"{label}={value}" for label, value in zip(labels, shown, strict=True))


@dataclass(frozen=True)
class TwoLevels:
    """Masks of background and foreground, which lies above `cut`; None: that is still to be decided.

    `background` and `foreground` are their levels where the user named both, which may be the other way round.
    """

    cut: float | None = None
    background: int = 0
    foreground: int | None = None

    def levels(self, mask: Image.Image) -> Array:
        """The distance (height, width) from the background's level towards that of the foreground."""
        levels = two_levels(mask)
        if self.foreground is None:
            return levels
        levels = levels.astype(np.int32)
        towards = 1 if self.foreground > self.background else -1
        return np.asarray(np.clip((levels - self.background) * towards, 0, None))

    def labels(self, mask: Image.Image) -> Array:
        """The labels 0 and 1 (height, width), uint8, by a cut that is decided. Raises ValueError."""
        assert self.cut is not None
        return np.asarray(self.levels(mask) > self.cut).astype(np.uint8)


MaskReading = Values | TwoLevels
TWO_LEVELS = TwoLevels()


@dataclass(frozen=True)
class Evidence:
    """What one mask of two levels says about where such masks are to be cut."""

    lowest: int
    highest: int
    levels: int  # how many there are
    area: int | None  # the foreground's level, where areas or few levels show it
    visible: int  # pixels from a quarter of `highest` on
    bright: int  # pixels from three quarters of `highest` on
    share: float  # of pixels above half of `highest`

    @property
    def is_one_level(self) -> bool:
        """Whether nothing tells two levels apart."""
        return self.highest - self.lowest <= (0 if self.levels <= FEW else self.highest / 8)


def examine(levels: Array, two_only: bool = True) -> Evidence:
    """What levels (height, width) say. Raises ValueError if a mask has a third plateau, unless not `two_only`.

    JPEG and resizing also make levels between the two, but only near the ends of the range or on a slope: a 5 × 5
    window in the middle of the range that is flat to a 16th of it is neither; soft edges leave a few by chance. Label
    maps without noise are known by their few levels, each with an area of its own, wherever in the range they lie.
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
        if np.count_nonzero(flat) > (levels.size / 2000 if noisy else 0):
            plateaus = [0, int(np.median(minimum[flat])), top]
        else:
            plateaus = []
    if two_only and len(plateaus) > 2:
        named = ",".join(f"NAME={level}" for level in plateaus if level)
        advice = (
            "save it without noise, and name its levels by --labels" if noisy else f"name its levels: --labels {named}"
        )
        raise ValueError(
            f"is no two-level mask: it has areas at the levels {', '.join(map(str, plateaus))}. If these are classes, "
            f"{advice}; if soft edges, say where to cut: --cut LEVEL"
        )
    visible, bright = (int(np.count_nonzero(levels >= highest * part)) for part in (1 / 4, 3 / 4))
    share = np.count_nonzero(levels > highest / 2) / levels.size
    return Evidence(lowest, highest, len(used), area, visible, bright, share)


def _foreground_area(levels: Array, minimum: Array, maximum: Array) -> int | None:
    """The level of the brightest flat areas, if there are more than chance makes of thin structures; JPEG overshoots
    beside edges, so that the brightest pixel says less."""
    half = int(levels.max()) / 2
    flat = (minimum > half) & (maximum - minimum <= half / 4)
    if np.count_nonzero(flat) < np.count_nonzero(levels > half) / 20:
        return None
    return int(minimum[flat].max())


@dataclass
class Decision:
    """One rule for a whole data set, in words too, and the problems that keep it from being one."""

    reading: TwoLevels  # with a cut
    rule: str
    problems: list[str]
    labels: list[frozenset[int]]  # of each mask, by this cut: 0 and 1, or only one of them


def decide_cut(masks: Sequence[tuple[SourceFile, Evidence]], reading: TwoLevels) -> Decision:
    """Decide from all masks of a data set at which level they are cut."""
    if reading.cut is not None:
        return _decided(masks, reading, f"cut at {reading.cut:g} as asked for")
    if (foreground := reading.foreground) is not None:
        reading = replace(reading, cut=abs(foreground - reading.background) / 2)
        middle = (foreground + reading.background) / 2
        side = "above" if foreground > reading.background else "below"
        return _decided(masks, reading, f"foreground is what lies {side} {middle:g}, as --labels says")
    lit = [(file, found) for file, found in masks if found.highest]
    problems = _without_background(lit)
    clear = sorted(found.area for _, found in lit if found.area and not found.is_one_level)
    if clear:
        top: int = clear[-1] if all(found.levels <= FEW for _, found in lit) else clear[len(clear) // 2]
        problems += _other_encodings(lit, top)
    else:
        top = max((found.highest for _, found in lit), default=0)
        problems += _unclear(lit)
    exact = all(found.levels <= 2 for _, found in lit)
    edges = "" if exact else ", with soft or noisy edges"
    rule = f"levels 0 and {top}{edges}; all cut at {top / 2:g}, foreground is brighter"
    return replace(_decided(masks, replace(reading, cut=top / 2), rule), problems=problems)


def _without_background(lit: Sequence[tuple[SourceFile, Evidence]]) -> list[str]:
    problems = [
        f"{file}: has the levels {found.lowest} and {found.highest}, neither of them 0: which is foreground? "
        f"Say --labels background={found.lowest},NAME={found.highest}, or the other way round"
        for file, found in lit
        if found.lowest > found.highest / 8 and not found.is_one_level
    ]
    if lit and all(found.is_one_level for _, found in lit):
        problems.append(
            f"{lit[0][0]}: is all {lit[0][1].highest}, and no mask has both foreground and background: nothing says "
            "which it is; --cut LEVEL does"
        )
    return problems


def _other_encodings(lit: Sequence[tuple[SourceFile, Evidence]], top: int) -> list[str]:
    """A mask of 0 and 1 among masks of 0 and 255 is empty or full: only its author knows."""
    example = next(file for file, found in lit if (found.area or 0) >= top)
    exact = any(found.levels <= 2 and found.area == top for _, found in lit)
    problems = []
    for file, found in lit:
        tolerance = top / 4 if found.levels > FEW else 0 if found.levels <= 2 and exact else top / 8
        level = found.area or found.highest
        # thin and soft structures reach the level here and there only, and JPEG overshoots it a little
        if abs(level - top) > tolerance if found.area else not top / 2 < level <= top * 5 / 4:
            problems.append(
                f"{file}: its levels end at {level}, those of {example} at {top}; expected one encoding. If these are "
                "classes, name them: --labels NAME=VALUE,…; if not, --cut LEVEL says what is foreground"
            )
    return problems


def _unclear(lit: Sequence[tuple[SourceFile, Evidence]]) -> list[str]:
    visible, bright = (sum(getattr(found, name) for _, found in lit) for name in ("visible", "bright"))
    if not lit or bright >= CLEAR * visible or all(found.is_one_level for _, found in lit):
        return []
    return [
        f"{lit[0][0]}: no mask has a clear level of foreground; only {bright / visible:.0%} of what is not dark is "
        "near the brightest level. Say where to cut: --cut LEVEL"
    ]


def _decided(masks: Sequence[tuple[SourceFile, Evidence]], reading: TwoLevels, rule: str) -> Decision:
    assert reading.cut is not None
    labels = [frozenset({int(found.lowest > reading.cut), int(found.highest > reading.cut)}) for _, found in masks]
    return Decision(reading, rule, [], labels)
