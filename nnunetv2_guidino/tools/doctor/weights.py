"""What an encoder's folder holds, told without loading it: whole, cut short, a pointer, a web page."""

from __future__ import annotations

from pathlib import Path

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json
from nnunetv2_guidino.model.encoders.damage import check_files


def what_is_wrong(folder: Path) -> str | None:
    """What keeps an encoder's folder from being loaded; None if nothing is seen."""
    try:
        weights = sorted(folder.glob("*.safetensors"))
        if (folder / "config.json").is_file():
            check_files(folder)
        read_json(folder / "config.json", dict)
        return _missing_parts(folder) or (None if weights else _no_weights(folder))
    except GuidinoError as error:
        return str(error)
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
    parts = read_json(index, dict).get("weight_map")
    if not isinstance(parts, dict):
        return f"{index} has no weight_map"
    missing = sorted({str(name) for name in parts.values() if not (folder / str(name)).is_file()})
    return f"{folder} lacks {missing[0]}, one of {len(missing)} files of weights that are missing" if missing else None
