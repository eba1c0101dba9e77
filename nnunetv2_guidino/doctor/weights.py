"""What an encoder's folder holds, told without loading it: whole, cut short, a pointer, a web page."""

from __future__ import annotations

import json
from pathlib import Path

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json

LARGEST_HEADER = 100 * 2**20  # bytes, safetensors' own limit


def what_is_wrong(folder: Path) -> str | None:
    """What keeps an encoder's folder from being loaded; None if nothing is seen."""
    try:
        read_json(folder / "config.json", dict)
    except GuidinoError as error:
        return str(error)
    try:
        weights = sorted(folder.glob("*.safetensors"))
        faults = (fault for file in weights if (fault := weights_fault(file)))
        return _missing_parts(folder) or next(faults, None) or (None if weights else _no_weights(folder))
    except OSError as error:
        return f"{error.filename or folder} cannot be read: {error.strerror or error}"


def _no_weights(folder: Path) -> str:
    others = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pth", ".pt", ".ckpt", ".h5"))
    also = f" ({others[0]} is another format, which is not loaded)" if others else ""
    return f"{folder} has no *.safetensors file{also}"


def _missing_parts(folder: Path) -> str | None:
    """Of weights in several files, one that is named but not there."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file() or (folder / "model.safetensors").is_file():
        return None
    try:
        parts = read_json(index, dict).get("weight_map")
    except GuidinoError as error:
        return str(error)
    if not isinstance(parts, dict):
        return f"{index} has no weight_map"
    missing = sorted({str(name) for name in parts.values() if not (folder / str(name)).is_file()})
    return f"{folder} lacks {missing[0]}, one of {len(missing)} files of weights that are missing" if missing else None


def weights_fault(file: Path) -> str | None:
    """What is wrong with a safetensors file; None if its header and its size agree."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(64)
        if start.startswith(b"version https://git-lfs"):
            return f"{file} is a Git LFS pointer of {size} bytes, not the weights"
        if start.lstrip()[:1] == b"<":
            return f"{file} is a web page, not the weights"
        length = int.from_bytes(start[:8], "little")
        if len(start) < 8 or length > LARGEST_HEADER:
            return f"{file} is no safetensors file"
        if 8 + length > size:
            return f"{file} was cut short: {size} bytes do not hold its header"
        stream.seek(8)
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return f"{file} is no safetensors file: its header is no JSON object of tensors"
    return f"{file} was cut short: it has {size} bytes of {expected}" if size < expected else None
