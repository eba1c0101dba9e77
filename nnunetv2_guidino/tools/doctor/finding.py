"""What the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        what: Its name.
        is_so: How it is.
        remedy: What to do about it; None: nothing is wrong.
    """

    what: str
    is_so: str
    remedy: str | None = None


def reason(error: BaseException) -> str:
    """The first line of an error, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
