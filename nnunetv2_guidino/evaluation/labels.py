"""Which classes are scored: the labels or regions of nnU-Net's dataset.json, or of the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_guidino.errors import GuidinoError


@dataclass(frozen=True)
class LabelSet:
    """Names of the classes with their label value, or with the values a region is made of, and the ignore label."""

    classes: dict[str, int | tuple[int, ...]]
    ignore: int | None = None

    @property
    def values(self) -> list[int]:
        """Every value a prediction may hold; a reference may hold the ignore label as well."""
        of_classes = {value for values in self.classes.values() for value in as_tuple(values)}
        return sorted({0} | of_classes)


def as_tuple(values: int | tuple[int, ...]) -> tuple[int, ...]:
    return values if isinstance(values, tuple) else (values,)


def read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise GuidinoError(f"{file} cannot be read as JSON: {error}") from error


def label_set(labels: dict[str, Any], source: str) -> LabelSet:
    """The classes of a `labels` section as nnU-Net writes it: name -> value, or name -> list of values (a region)."""
    try:
        values = {name: tuple(map(int, v)) if isinstance(v, list) else int(v) for name, v in labels.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise GuidinoError(f"{source}: labels must be name: value or name: [values], found {labels}") from error
    ignore = values.pop("ignore", None)
    if isinstance(ignore, tuple):
        raise GuidinoError(f"{source}: the ignore label must be one value, found {list(ignore)}")
    foreground = {name: v for name, v in values.items() if set(as_tuple(v)) != {0}}
    if not foreground:
        raise GuidinoError(f"{source}: no class besides the background")
    # nnU-Net takes a list of one value for the label itself
    return LabelSet({name: v if len(as_tuple(v)) > 1 else as_tuple(v)[0] for name, v in foreground.items()}, ignore)


def parse_labels(text: str) -> LabelSet:
    """`polyp=255` or `whole=1+2,core=2,ignore=3` from the command line."""
    labels: dict[str, Any] = {}
    for item in text.split(","):
        name, _, value = item.partition("=")
        values = value.split("+")
        if not name or not all(v.strip().isdigit() for v in values):
            raise GuidinoError(f"--labels: expected name=value,… (a region: name=1+2), found '{item}'")
        labels[name.strip()] = values if len(values) > 1 else values[0]
    return label_set(labels, "--labels")


def find_dataset_json(references: Path, predictions: Path) -> dict[str, Any]:
    """The dataset.json in the folder of the predictions or references, or one above it.

    Raises GuidinoError if there is none, or if there are two that tell of different labels.
    """
    folders = (predictions, references, predictions.resolve().parent, references.resolve().parent)
    files = [folder / "dataset.json" for folder in folders if (folder / "dataset.json").is_file()]
    if not files:
        raise GuidinoError(
            f"no dataset.json in or above {predictions} or {references}: put one there, or give --labels name=value,…"
        )
    contents = [read_json(file) for file in files]
    for file, content in zip(files, contents, strict=True):
        for key in ("labels", "file_ending"):
            if key not in content:
                raise GuidinoError(f"{file} has no key '{key}'")
        if content["labels"] != contents[0]["labels"]:
            raise GuidinoError(
                f"{files[0]} and {file} have different labels: {contents[0]['labels']} and {content['labels']}. "
                "Say with --labels which ones hold for both folders."
            )
    return dict(contents[0])
