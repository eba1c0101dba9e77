"""Values that several commands take; the errors name the range."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from nnunetv2_guidino.bounds import COUNT, FOLD, PIXELS, Range
from nnunetv2_guidino.commands.signature import Option
from nnunetv2_guidino.devices import DEVICES

Number = TypeVar("Number", int, float)


def _bounded(kind: Callable[[str], Number], name: str, bounds: Range) -> Callable[[str], Number]:
    def convert(text: str) -> Number:
        """Convert a number, or name the range that it leaves."""
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text}: expected a {name}, {bounds}") from None
        if value not in bounds:
            raise argparse.ArgumentTypeError(f"{value}: expected {bounds}")
        return value

    return convert


def whole(bounds: Range) -> Callable[[str], int]:
    """Return a converter to a whole number within bounds."""
    return _bounded(int, "whole number", bounds)


def number(bounds: Range) -> Callable[[str], float]:
    """Return a converter to a number within bounds; NaN and infinity are out of bounds."""
    return _bounded(float, "number", bounds)


def layer(text: str) -> int | list[int] | None:
    """Convert the name of an encoder's blocks: "last" (None), a number from 1, or several with commas."""
    if text == "last":
        return None
    numbers = [int(number) for number in text.split(",")]
    if numbers[0] < 1 or numbers != sorted(set(numbers)):
        raise argparse.ArgumentTypeError(
            f'{text}: expected "last", a number from 1, or several in ascending order: 8,10'
        )
    return numbers if len(numbers) > 1 else numbers[0]


def layers(text: str) -> list[int] | None:
    """Convert a list of an encoder's blocks: "all" (None), or numbers from 1 with commas."""
    if text == "all":
        return None
    numbers = sorted({int(number) for number in text.split(",")})
    if numbers[0] < 1:
        raise argparse.ArgumentTypeError(f'{text}: expected "all", or numbers from 1: 4,8,12')
    return numbers


def fold(text: str) -> str:
    """Convert the name of a fold: a number from 0, or "all"."""
    if text == "all":
        return text
    try:
        return str(whole(FOLD)(text))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f'{text}: expected a fold: 0, 1, …, or "all"') from None


count = whole(COUNT)
pixels = whole(PIXELS)
device = Option("-device --device", choices=DEVICES, help="device")
torch_device = Option("-device --device", choices=DEVICES, help="device", default="cpu")  # the function has no default
