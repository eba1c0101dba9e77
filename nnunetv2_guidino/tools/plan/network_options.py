"""Describe the network that plans get in place of their own, as options, a matrix or a notebook name it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError

WIDTHS = ("paper", "planned")


@dataclass(frozen=True)
class Network:
    """A network for plans.

    Args:
        name: Name in lists.ARCHITECTURES.
        width: "paper", or "planned" for as many channels and levels as nnU-Net planned, if the network can follow them.
        settings: Settings of the network by name; missing ones have their defaults.

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
