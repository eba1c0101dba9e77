"""Ranges of numbers, refused alike on the command line and in a notebook."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nnunetv2_guidino.errors import GuidinoError


@dataclass(frozen=True)
class Range:
    """From `low` to `high`.

    Args:
        low: The smallest number allowed.
        high: The largest one.
        without_low: `low` itself is not allowed.
    """

    low: float
    high: float = math.inf
    without_low: bool = False

    def __contains__(self, value: float) -> bool:
        enough = value > self.low if self.without_low else value >= self.low
        return enough and value <= self.high and math.isfinite(value)

    def __str__(self) -> str:
        low = f"{'more than' if self.without_low else 'at least'} {self.low:g}"
        return low if self.high == math.inf else f"{low} and at most {self.high:.10g}"

    def check(self, name: str, value: float) -> None:
        """Raises GuidinoError, naming what has that value, if it lies outside."""
        if isinstance(value, bool) or value not in self:
            raise GuidinoError(f"{name} {value}: expected {self}")


COUNT = Range(1, 10**6)
PIXELS = Range(1, 2**13)  # of an encoder's input; at 8192×8192 its tokens alone need gigabytes
SEED = Range(0, 2**31 - 1)
FOLD = Range(0, 999)
STEP_SIZE = Range(0, 1, without_low=True)  # nnU-Net's, of the sliding window: 1 is a whole patch
GIGABYTES = Range(0, 10**5, without_low=True)
