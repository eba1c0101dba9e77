"""Find damage in an encoder: a pointer or a web page in place of a file, a file cut short, weights that are NaN."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import download_fault

_LONGEST_HEADER = 100_000_000  # bytes, safetensors' own limit


def check_files(folder: Path) -> None:
    """Check config.json and the headers of the weights in an encoder's folder.

    Raises:
        GuidinoError: For a file that is a Git LFS pointer, a web page, empty or cut short.
    """
    for file in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        try:
            damage = _damage(file)
        except OSError as error:
            raise GuidinoError(f"{file} cannot be read: {error.strerror or error}") from error
        if damage is not None:
            raise GuidinoError(f"{file} {damage}. Download it again, for example with `guidino encoder fetch`")


def _damage(file: Path) -> str | None:
    if file.exists() and not file.is_file():
        return "is no regular file"
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(1024)
        if not start:
            return "is empty"
        if fault := download_fault(start):
            return fault
        if file.suffix != ".safetensors":
            return None
        if len(start) < 8:
            return f"is cut short: it has {size} bytes"
        length = int.from_bytes(start[:8], "little")
        if length > _LONGEST_HEADER:
            return "is no safetensors file, whatever its name"
        stream.seek(8)
        header = stream.read(length)
    if len(header) < length:
        return f"is cut short: it has {size:,} bytes, fewer than its header says of itself"
    return _wrong_size(header, size - 8 - length)


def _wrong_size(header: bytes, found: int) -> str | None:
    try:
        tensors = [tensor for name, tensor in json.loads(header).items() if name != "__metadata__"]
        expected = max((tensor["data_offsets"][1] for tensor in tensors), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        return "is no safetensors file, whatever its name"
    if found < expected:
        return f"is cut short: its tensors have {found:,} bytes of {expected:,}"
    return None


def check_finite(weights: Mapping[str, Tensor], origin: object) -> None:
    """Check that all weights are finite; read each once.

    Args:
        weights: Tensors by name.
        origin: Their source, for the message.

    Raises:
        GuidinoError: If a tensor holds NaN or infinite values.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise GuidinoError(f"{origin}: {name} contains NaN or infinite values")
