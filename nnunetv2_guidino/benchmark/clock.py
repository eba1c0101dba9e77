"""How long it will still take, as far as finished trainings tell."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence

Kind = tuple[str, str, str]


class Clock:
    """Learns from finished trainings how long one of each kind takes."""

    def __init__(self) -> None:
        self.seconds: dict[Kind, list[float]] = defaultdict(list)

    def learn(self, kind: Kind, seconds: float) -> None:
        """A training ran from its beginning to its end."""
        self.seconds[kind].append(seconds)

    def expected(self, kind: Kind) -> float | None:
        """The mean of its kind, else of all; None before anything is known."""
        known = self.seconds.get(kind) or [value for values in self.seconds.values() for value in values]
        return sum(known) / len(known) if known else None

    def to_go(self, running: Iterable[tuple[Kind, float]], waiting: Sequence[Kind], places: int) -> float | None:
        """Seconds until everything has ended; None before anything is known.

        Args:
            running: Kind of each that runs, and for how many seconds it has.
            waiting: Kinds in the order in which they will start.
            places: How many run at once.
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
    """About how long, in a unit that suits."""
    if seconds is None:
        return "time to go: known when the first has ended"
    if seconds < 90:
        return f"about {seconds:.0f} s to go"
    return f"about {seconds / 60:.0f} min to go" if seconds < 5400 else f"about {seconds / 3600:.1f} h to go"
