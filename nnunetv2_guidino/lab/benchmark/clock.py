"""Estimates of the remaining time from finished trainings."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence

Kind = tuple[str, str, str]


class Clock:
    """Estimates the time of each kind of training from finished ones."""

    def __init__(self) -> None:
        self.seconds: dict[Kind, list[float]] = defaultdict(list)

    def learn(self, kind: Kind, seconds: float) -> None:
        """Record the time of a training that ran without a break."""
        self.seconds[kind].append(seconds)

    def expected(self, kind: Kind) -> float | None:
        """Return the mean time of its kind, else of all trainings; None without any."""
        known = self.seconds.get(kind) or [value for values in self.seconds.values() for value in values]
        return sum(known) / len(known) if known else None

    def to_go(self, running: Iterable[tuple[Kind, float]], waiting: Sequence[Kind], places: int) -> float | None:
        """Return the seconds until the last training ends; None if no time is known.

        Args:
            running: The kind of each running training and its seconds so far.
            waiting: The kinds of the waiting trainings in their order.
            places: The number of trainings at once.
        """
        if not self.seconds:
            return None
        busy = [max(0.0, (self.expected(kind) or 0) - seconds) for kind, seconds in running]
        ends = (busy + [0.0] * places)[: max(places, len(busy))]
        heapq.heapify(ends)
        for kind in waiting:
            heapq.heappush(ends, heapq.heappop(ends) + (self.expected(kind) or 0))
        return max(ends)


def in_words(seconds: float | None) -> str:
    """Return the remaining time as text, in seconds, minutes or hours."""
    if seconds is None:
        return "time to go: known when the first has ended"
    if seconds < 90:
        return f"about {seconds:.0f} s to go"
    return f"about {seconds / 60:.0f} min to go" if seconds < 5400 else f"about {seconds / 3600:.1f} h to go"
