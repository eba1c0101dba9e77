"""plans.json and dataset.json as nnU-Net reads them; whatever is wrong in them is said with the file's name.

Read in nnU-Net 2.8.1: PlansManager and LabelManager take dictionaries as they are and fail where a key is first used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json
from nnunetv2_guidino.plans import read_plans


@contextmanager
def said_of(file: Path, purpose: str) -> Iterator[None]:
    """Whatever nnU-Net raises while it uses what stands in a file, as a GuidinoError that names file and key.

    Args:
        file: That was read.
        purpose: What it is used for, such as "describes no network".
    """
    try:
        yield
    except GuidinoError:
        raise
    except MemoryError as error:  # also for a size that a damaged file names
        raise GuidinoError(f"{file} {purpose}: it needs more memory than there is") from error
    except KeyError as error:
        raise GuidinoError(f"{file} {purpose}: the key {error} is missing") from error
    except Exception as error:  # each of nnU-Net's classes fails in its own way
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise GuidinoError(f"{file} {purpose}: {lines[0]}") from error


def read_dataset_json(file: Path, *needed: str) -> dict[str, Any]:
    """nnU-Net's dataset.json, or a trained model's copy of it.

    Args:
        needed: Those of labels, channel_names and file_ending that are used.

    Raises:
        GuidinoError: If the file cannot be read, or one of these is missing or of another shape.
    """
    content = read_json(file, dict)
    if "modality" in content:  # nnU-Net takes the old name too
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
    """nnU-Net's plans: read_plans, and the configurations are there.

    Raises:
        GuidinoError: If the file cannot be read, or is no plans file.
    """
    plans = read_plans(file)
    configurations = plans.get("configurations")
    if not isinstance(configurations, dict) or not all(isinstance(value, dict) for value in configurations.values()):
        raise GuidinoError(f"{file} has no configurations: it is not a plans file of nnU-Net")
    return plans


def configuration_of(plans: dict[str, Any], file: Path, name: str) -> tuple[Any, Any]:
    """nnU-Net's PlansManager and ConfigurationManager, with what every training needs of them.

    Args:
        plans: As read_configurations returns them.
        file: Where they come from, for the messages.
        name: Of the configuration.

    Raises:
        GuidinoError: If there is no such configuration, or something in it is missing.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    if name not in plans["configurations"]:
        known = ", ".join(plans["configurations"])
        raise GuidinoError(f"{file} has no configuration {name}; there are {known}")
    manager = PlansManager(plans)
    with said_of(file, f"does not describe the configuration {name}"):
        settings = manager.get_configuration(name)
        sides = [int(side) for side in settings.patch_size]
        if len(sides) not in (2, 3) or min(sides) < 1:
            raise ValueError(f"patch_size is {settings.patch_size}; expected two or three sides")
        for key, kind in _NEEDED.items():
            if not isinstance(settings.configuration[key], kind) or settings.configuration[key] in ([], ""):
                raise ValueError(f"{key} is {_shown(settings.configuration[key])}; expected {kind.__name__}")
        if manager.label_manager_class is None:
            raise ValueError("nnU-Net has no label_manager as it is named there")
    return manager, settings


_NEEDED = {"batch_size": int, "data_identifier": str, "normalization_schemes": list, "architecture": dict}


def label_manager_of(manager: Any, dataset_json: dict[str, Any], file: Path) -> Any:
    """nnU-Net's LabelManager of a dataset.json; raises GuidinoError, naming it, if nnU-Net cannot use its labels."""
    with said_of(file, "has labels that nnU-Net cannot use"):
        return manager.get_label_manager(dataset_json)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
