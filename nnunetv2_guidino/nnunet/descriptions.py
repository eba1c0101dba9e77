"""Read plans.json and dataset.json as nnU-Net does, with errors that name the file.

Read in nnU-Net 2.8.1: PlansManager and LabelManager do not check their dictionaries; the first use of a key fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json
from nnunetv2_guidino.nnunet.plans import read_plans
from nnunetv2_guidino.printable import first_line


@contextmanager
def errors_in(file: Path, purpose: str) -> Iterator[None]:
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
        needed: The keys that the caller uses, among labels, channel_names and file_ending.

    Raises:
        GuidinoError: If the file cannot be read, or a needed key is missing or has another type.
    """
    content = read_json(file, dict)
    if "modality" in content:  # nnU-Net also accepts the old name
        content.setdefault("channel_names", content["modality"])
    for key in needed:
        expected, fits = _SHAPES[key]
        if key not in content:
            raise GuidinoError(f"{file} has no {key}; expected {expected}, as in nnU-Net's dataset.json")
        if not fits(content[key]):
            raise GuidinoError(f"{file}: {key} is {_shown(content[key])}; expected {expected}")
    return content


def _are_labels(value: Any) -> bool:
    values = value.values() if isinstance(value, dict) else []
    flat = [number for entry in values for number in (entry if isinstance(entry, list) else [entry])]
    return bool(flat) and all(isinstance(number, int) and not isinstance(number, bool) for number in flat)


_SHAPES = {
    "labels": ("an object of names with their values, or lists of them", _are_labels),
    "channel_names": ("an object of channels with their names", lambda value: isinstance(value, dict) and bool(value)),
    "file_ending": ('a text such as ".png"', lambda value: isinstance(value, str) and value.startswith(".")),
}


def read_configurations(file: Path) -> dict[str, Any]:
    """Read nnU-Net's plans, and check that they have configurations.

    Raises:
        GuidinoError: If the file cannot be read, or is no plans file.
    """
    plans = read_plans(file)
    configurations = plans.get("configurations")
    if not isinstance(configurations, dict) or not all(isinstance(value, dict) for value in configurations.values()):
        raise GuidinoError(f"{file} has no configurations: it is not a plans file of nnU-Net")
    return plans


def configuration_of(plans: dict[str, Any], file: Path, name: str) -> tuple[Any, Any]:
    """Return nnU-Net's PlansManager and ConfigurationManager, checked for the keys that every training needs.

    Args:
        plans: The plans, from read_configurations.
        file: Their file, for the messages.
        name: The name of the configuration.

    Raises:
        GuidinoError: If there is no such configuration, or a key in it is missing.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    if name not in plans["configurations"]:
        known = ", ".join(plans["configurations"])
        raise GuidinoError(f"{file} has no configuration {name}; there are {known}")
    manager = PlansManager(plans)
    with errors_in(file, f"does not describe the configuration {name}"):
        settings = manager.get_configuration(name)
        sides = [int(side) for side in settings.patch_size]
        if len(sides) not in (2, 3) or min(sides) < 1:
            raise ValueError(f"patch_size is {settings.patch_size}; expected two or three sides")
        for key, kind in _NEEDED.items():
            if not isinstance(settings.configuration[key], kind) or settings.configuration[key] in ([], ""):
                raise ValueError(f"{key} is {_shown(settings.configuration[key])}; expected {kind.__name__}")
        if manager.label_manager_class is None:
            raise ValueError("nnU-Net has no class with the name in label_manager")
    return manager, settings


_NEEDED = {"batch_size": int, "data_identifier": str, "normalization_schemes": list, "architecture": dict}


def label_manager_of(manager: Any, dataset_json: dict[str, Any], file: Path) -> Any:
    """Return nnU-Net's LabelManager of a dataset.json; raises GuidinoError if nnU-Net cannot use its labels."""
    with errors_in(file, "has labels that nnU-Net cannot use"):
        return manager.get_label_manager(dataset_json)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
