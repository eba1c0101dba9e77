"""The data set's place in nnU-Net's folders, and what lies there already."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from nnunetv2_guidino.conversion.dataset import Split
from nnunetv2_guidino.errors import GuidinoError


def target_folder(output: Path | None, dataset_id: int, name: str) -> Path:
    """DatasetXXX_NAME below `output`, or below nnU-Net's variable nnUNet_raw.

    Raises:
        GuidinoError: If neither says where, or the id is none.
    """
    from nnunetv2.paths import nnUNet_raw

    if output is None and not nnUNet_raw.is_set():
        raise GuidinoError("where to? Set the environment variable nnUNet_raw or pass -o NNUNET_RAW")
    if not 1 <= dataset_id <= 999:
        raise GuidinoError(f"-d {dataset_id}: nnU-Net's data set ids are 1 to 999")
    return Path(output or nnUNet_raw).absolute() / f"Dataset{dataset_id:03d}_{name}"


def problems_of_target(target: Path, dataset_id: int, overwrite: bool) -> list[str]:
    """Why the data set may not come to `target`: it exists, or its id does."""
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results

    problems = []
    if target.exists() and not overwrite:
        problems.append(f"{target}: exists; pass --overwrite to replace it")
    nnunet_folders = (Path(folder) for folder in (nnUNet_raw, nnUNet_preprocessed, nnUNet_results) if folder.is_set())
    for folder in {target.parent, *nnunet_folders}:
        for other in folder.glob(f"Dataset{dataset_id:03d}_*"):
            if other.name != target.name:
                problems.append(f"{other}: has the id {dataset_id} already, which nnU-Net allows once; pass -d")
    return problems


def warnings_of_leftovers(target: Path) -> list[str]:
    """What killed conversions left beside `target`."""
    warnings = []
    for leftover in target.parent.glob(f".{target.name}.*"):
        advice = "delete it" if ".incomplete-" in leftover.name or target.exists() else f"rename it to {target.name}"
        warnings.append(f"{leftover} is left of a conversion that was killed; {advice}")
    return warnings


def preprocessed_splits(target: Path) -> Path | None:
    """Where nnU-Net's trainer looks for the splits of the data set; None if nnUNet_preprocessed is not set."""
    from nnunetv2.paths import nnUNet_preprocessed

    return Path(nnUNet_preprocessed) / target.name / "splits_final.json" if nnUNet_preprocessed.is_set() else None


def problems_of_splits(existing: Path | None, split: Split) -> list[str]:
    """Without --overwrite, splits that nnU-Net would use instead of these are in the way."""
    if existing and _read_json(existing) not in (None, list(split.folds)):
        return [f"{existing}: nnU-Net would use these other splits; remove it or pass --overwrite"]
    return []


def _read_json(file: Path) -> Any:
    """The contents; None if there is no such file, or no json in it."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def install_splits(source: Path, destination: Path) -> None:
    """Put the new splits, or none, where nnU-Net's trainer looks for them."""
    try:
        if not source.exists():
            destination.unlink(missing_ok=True)
            return
        destination.parent.mkdir(parents=True, exist_ok=True)
        copy = destination.with_name(f".{destination.name}.{os.getpid()}")
        shutil.copyfile(source, copy)
        copy.replace(destination)
    except OSError as error:
        raise GuidinoError(f"{source.parent} is complete, but {destination} could not be written: {error}") from error
