"""The devices that a command may name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnunetv2_guidino.errors import GuidinoError

if TYPE_CHECKING:
    import torch

DEVICES = ("cpu", "cuda", "mps")


def usable_device(name: str) -> torch.device:
    """torch's device of that name.

    Raises:
        GuidinoError: If this machine, or this torch, has none, or there is no such name.
    """
    import torch

    if name not in DEVICES:
        raise GuidinoError(f"-device {name}: expected one of {', '.join(DEVICES)}")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not available[name]:
        raise GuidinoError(f"-device {name}: there is none here. Say -device cpu")
    return torch.device(name)
