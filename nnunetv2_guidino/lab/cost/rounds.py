"""Time several actions by turns, so that a slow moment of the machine meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from tqdm import tqdm

Name = TypeVar("Name")


def interleaved(
    actions: Mapping[Name, Callable[[], Any]], rounds: int, device: torch.device
) -> dict[Name, list[float]]:
    """Return the seconds of each action in each round; every round runs all actions.

    Each action runs once more just before it is timed. A training makes step after step, and the other actions have
    driven its memory out of caches and, on machines that take back idle memory, away.

    Args:
        actions: The actions by name.
        rounds: The number of times that each action is timed.
        device: The device whose queue must be empty before the clock is read.
    """

    def clock() -> float:
        if device.type != "cpu":
            getattr(torch, device.type).synchronize()
        return time.perf_counter()

    seconds: dict[Name, list[float]] = {name: [] for name in actions}
    for _ in tqdm(range(rounds), desc="rounds", leave=False, disable=None):
        for name, action in actions.items():
            action()
            start = clock()
            action()
            seconds[name].append(clock() - start)
    return seconds
