"""Options that several commands share, and types of options that say what they expect."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from nnunetv2_guidino.bounds import FOLD, Range
from nnunetv2_guidino.devices import DEVICES


def whole(bounds: Range) -> Callable[[str], int]:
    """Type of an option that is a whole number within bounds."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text}: expected a whole number, {bounds}") from None
        return _within(bounds, value)

    return convert


def number(bounds: Range) -> Callable[[str], float]:
    """Type of an option that is a number within bounds; neither NaN nor infinite."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text}: expected a number, {bounds}") from None
        return _within(bounds, value)

    return convert


Number = TypeVar("Number", int, float)


def _within(bounds: Range, value: Number) -> Number:
    if value not in bounds:
        raise argparse.ArgumentTypeError(f"{value}: expected {bounds}")
    return value


def layer(text: str) -> int | list[int] | None:
    """Type of an option that names an encoder's blocks: "last" (None), a number from 1, or several with commas."""
    if text == "last":
        return None
    numbers = [int(number) for number in text.split(",")]
    if numbers[0] < 1 or numbers != sorted(set(numbers)):
        raise argparse.ArgumentTypeError(
            f'{text}: expected "last", a number from 1, or several in ascending order: 8,10'
        )
    return numbers if len(numbers) > 1 else numbers[0]


def layers(text: str) -> list[int] | None:
    """Type of an option that lists an encoder's blocks: "all" (None), or numbers from 1 with commas."""
    if text == "all":
        return None
    numbers = sorted({int(number) for number in text.split(",")})
    if numbers[0] < 1:
        raise argparse.ArgumentTypeError(f'{text}: expected "all", or numbers from 1: 4,8,12')
    return numbers


def fold(text: str) -> str:
    """Type of an option that names a fold: a number from 0, or "all"."""
    if text == "all":
        return text
    try:
        return str(whole(FOLD)(text))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f'{text}: expected a fold: 0, 1, …, or "all"') from None


def add_device(parser: argparse.ArgumentParser, default: str = "cpu") -> None:
    """Add -device, spelled as nnU-Net does; whether this machine has it is seen where it is used."""
    parser.add_argument(
        "-device", "--device", dest="device", choices=DEVICES, default=default, help="default: %(default)s"
    )
