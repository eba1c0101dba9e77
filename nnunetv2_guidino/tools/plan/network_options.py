"""Which network plans shall have in place of theirs: as options, a matrix or a notebook say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError

WIDTHS = ("paper", "planned")


@dataclass(frozen=True)
class Network:
    """A network that plans shall have.

    Args:
        name: One of lists.ARCHITECTURES.
        width: "paper", or "planned" for as many channels and levels as nnU-Net planned, where it can follow them.
        settings: Its own, by name; its defaults for the others.

    Raises:
        GuidinoError: If there is no such network or width.
    """

    name: str
    width: str = "paper"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lists.find(lists.ARCHITECTURES, self.name, "the architecture")
        if self.width not in WIDTHS:
            raise GuidinoError(f"the width is {self.width!r}; expected {lists.one_of(WIDTHS)}")
