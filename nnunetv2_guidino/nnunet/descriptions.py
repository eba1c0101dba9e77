"""Read dataset.json as nnU-Net does, and turn errors of nnU-Net into messages that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunetv2_guidino.checks import Kind
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json
from nnunetv2_guidino.printable import first_line


@contextmanager
def errors_in(file: Path | str, purpose: str) -> Iterator[None]:
    """Turn every error of nnU-Net with the content of a file into a GuidinoError that names the file and the key.

    Args:
        file: The file.
        purpose: The failed use of the file for the message, such as "describes no network".
    """
    try:
        yield
    except GuidinoError:
        raise
    except MemoryError as error:  # a damaged file may ask for any size
        raise GuidinoError(f"{file} {purpose}: there is not enough memory") from error
    except KeyError as error:
        raise GuidinoError(f"{file} {purpose}: the key {error} is missing") from error
    except Exception as error:  # each of nnU-Net's classes fails in its own way
        raise GuidinoError(f"{file} {purpose}: {first_line(error)}") from error


def read_dataset_json(file: Path, *needed: str) -> dict[str, Any]:
    """Read nnU-Net's dataset.json, or a trained model's copy of it.

    Args:
        file: The dataset.json.
        needed: The keys that the caller uses, among labels, channel_names, numTraining and file_ending.

    Raises:
        GuidinoError: If the file cannot be read, or a needed key is missing or has another type.
    """
    content = read_json(file, dict)
    if "modality" in content:  # nnU-Net also accepts the old name
        content.setdefault("channel_names", content["modality"])
    for key in needed:
        kind = _KINDS[key]
        if key not in content:
            raise GuidinoError(f"{file} has no {key}; expected {kind.expected}, as in nnU-Net's dataset.json")
        kind.check(f"{file}: {key}", content[key])
    return content


def _are_labels(value: Any) -> bool:
    values = value.values() if isinstance(value, dict) else []
    flat = [number for entry in values for number in (entry if isinstance(entry, list) else [entry])]
    return bool(flat) and all(type(number) is int for number in flat)


_KINDS = {
    "labels": Kind("an object of names with their values, or lists of them", _are_labels),
    "channel_names": Kind("an object of channels with their names", lambda value: isinstance(value, dict) and value),
    "numTraining": Kind("the number of training cases", lambda value: type(value) is int),
    "file_ending": Kind('a text such as ".png"', lambda value: isinstance(value, str) and value.startswith(".")),
}
