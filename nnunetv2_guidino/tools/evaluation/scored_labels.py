"""The classes to score: the labels or regions of nnU-Net's dataset.json or of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.descriptions import read_dataset_json
from nnunetv2_guidino.printable import check_name
from nnunetv2_guidino.tools.evaluation.metrics import FOREGROUND


@dataclass(frozen=True)
class LabelSet:
    """The classes' names with their label value, or with the label values of a region, and the ignore label."""

    classes: dict[str, int | tuple[int, ...]]
    ignore: int | None = None

    @property
    def values(self) -> list[int]:
        """Return the values that a prediction may hold; a reference may also hold the ignore label."""
        return sorted({0} | {value for values in self.classes.values() for value in as_tuple(values)})


def as_tuple(values: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return the label values of a class or region."""
    return values if isinstance(values, tuple) else (values,)


def label_set(labels: Mapping[str, Any] | None, source: str) -> LabelSet:
    """Return the classes of nnU-Net's section `labels`: name -> value, or name -> list of values (a region).

    Raises:
        GuidinoError: If the section has another form, no class, a class without values, or two with the same values.
    """
    if not isinstance(labels, Mapping):
        raise GuidinoError(f"{source}: labels must be name: value or name: [values], found {labels!r}")
    for name in labels:
        check_name(name, f"{source}: labels")
    values = {name: tuple(_value(v, name, source) for v in _listed(found)) for name, found in labels.items()}
    ignore = values.pop("ignore", None)
    if ignore is not None and len(ignore) != 1:
        raise GuidinoError(f"{source}: the ignore label must be one value, found {list(ignore)}")
    foreground = {name: v for name, v in values.items() if set(v) != {0}}
    _check_classes(foreground, source)
    # nnU-Net treats a list of one value as a label, not as a region
    return LabelSet({name: v if len(v) > 1 else v[0] for name, v in foreground.items()}, ignore[0] if ignore else None)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _value(value: Any, name: str, source: str) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise GuidinoError(
        f"{source}: labels must be name: value or name: [values], with whole numbers from 0; found {name}: {value!r}"
    )


def _check_classes(classes: Mapping[str, tuple[int, ...]], source: str) -> None:
    if not classes:
        raise GuidinoError(f"{source}: there is no class besides the background; name one")
    if FOREGROUND in classes:
        raise GuidinoError(f"{source}: '{FOREGROUND}' is the mean of all classes here; give the class another name")
    names: dict[tuple[int, ...], str] = {}
    for name, values in classes.items():
        if not values:
            raise GuidinoError(f"{source}: {name} has no label value")
        if values in names:
            raise GuidinoError(f"{source}: {names[values]} and {name} have the same label values {list(values)}")
        names[values] = name


def parse_labels(text: str, option: str = "--labels") -> LabelSet:
    """Parse `polyp=255` or `whole=1+2,core=2,ignore=3` from the command line; raise GuidinoError for anything else."""
    labels: dict[str, Any] = {}
    for item in text.split(","):
        name, _, value = item.partition("=")
        values = value.split("+")
        if not name.strip() or name.strip() in labels or not all(v.strip().isdecimal() for v in values):
            raise GuidinoError(
                f"{option}: expected name=value,… (a region: name=1+2), each name once; found '{item}' in '{text}'"
            )
        labels[name.strip()] = values if len(values) > 1 else values[0]
    return label_set(labels, option)


def translation(predicted: LabelSet, labels: LabelSet) -> dict[int, int]:
    """Return label value in the predictions -> label value in the references, for two sets of the same classes.

    Raises:
        GuidinoError: If the classes differ, or if one predicted value stands for two classes.
    """
    if set(predicted.classes) != set(labels.classes):
        raise GuidinoError(
            f"the predictions' labels name {sorted(predicted.classes)}, the references' {sorted(labels.classes)}; "
            "--labels-pred must name the same classes"
        )
    values = {0: 0}
    for name in labels.classes:
        found, wanted = as_tuple(predicted.classes[name]), as_tuple(labels.classes[name])
        if len(found) != len(wanted):
            raise GuidinoError(
                f"{name} has {len(wanted)} label values in the references, but --labels-pred gives {list(found)}"
            )
        for value, reference_value in zip(found, wanted, strict=True):
            if values.setdefault(value, reference_value) != reference_value:
                raise GuidinoError(f"--labels-pred: the value {value} of {name} stands for another class already")
    return values


def find_dataset_json(references: Path, predictions: Path) -> tuple[dict[str, Any], Path]:
    """Return the content and path of the first dataset.json that exists.

    The order is: the folder of predictions, the folder of references, the folder above the predictions, the folder
    above the references.

    Raises:
        GuidinoError: If there is none, or if two of them have different labels or file endings.
    """
    folders = (predictions, references, predictions.resolve().parent, references.resolve().parent)
    files = [folder / "dataset.json" for folder in folders if (folder / "dataset.json").is_file()]
    if not files:
        raise GuidinoError(
            f"no dataset.json in or above {predictions} or {references}; put one there, or use --labels name=value,…"
        )
    contents = [read_dataset_json(file, "file_ending") for file in files]
    for file, content in zip(files, contents, strict=True):
        for key in ("labels", "file_ending"):
            if content.get(key) != contents[0].get(key):
                raise GuidinoError(
                    f"{files[0]} and {file} have different {key.replace('file_ending', 'file endings')}: "
                    f"{contents[0].get(key)} and {content.get(key)}; name the classes of both folders with --labels "
                    "name=value,…, which reads no dataset.json"
                )
    return contents[0], files[0]
