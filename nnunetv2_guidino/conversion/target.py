"""The data set's place in nnU-Net's folders, and what lies there already."""

from __future__ import annotations

import os
from pathlib import Path

from nnunetv2_guidino.conversion.dataset import Split
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json, write_text


def nnunet_folder(name: str) -> Path | None:
    """The folder that one of nnU-Net's three variables names; None if it is not set, or empty."""
    return Path(os.environ[name]) if os.environ.get(name) else None


def target_folder(output: Path | None, dataset_id: int, name: str) -> Path:
    """DatasetXXX_NAME below `output`, or below nnU-Net's variable nnUNet_raw.

    Raises:
        GuidinoError: If neither says where, or the id is none.
    """
    raw = output or nnunet_folder("nnUNet_raw")
    if raw is None:
        what = "is set to nothing" if "nnUNet_raw" in os.environ else "is not set"
        raise GuidinoError(f"where to? The environment variable nnUNet_raw {what}; set it, or pass -o NNUNET_RAW")
    if not 1 <= dataset_id <= 999:
        raise GuidinoError(f"-d {dataset_id}: nnU-Net's data set ids are 1 to 999")
    if not name.strip("_"):
        raise GuidinoError("the data set has no name; pass --name")
    return raw.absolute() / f"Dataset{dataset_id:03d}_{name}"


def problems_of_target(target: Path, overwrite: bool) -> list[str]:
    """Why the data set may not come to `target`: it exists, or its id does.

    Raises:
        GuidinoError: If one of nnU-Net's folders cannot be read.
    """
    problems = []
    if target.exists() and not overwrite:
        problems.append(f"{target}: exists; pass --overwrite to replace it")
    number = target.name[len("Dataset") :].partition("_")[0]
    folders = (nnunet_folder(name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"))
    for folder in sorted({target.parent, *(folder.absolute() for folder in folders if folder)}):
        try:
            others = [other for other in folder.iterdir() if other.name.startswith(f"Dataset{number}_")]
        except (FileNotFoundError, NotADirectoryError):  # what writing to it will say
            continue
        except OSError as error:
            raise GuidinoError(f"{folder} cannot be read: {error.strerror or error}") from error
        problems += [
            f"{other}: has the id {int(number)} already, which nnU-Net allows once; pass -d"
            for other in others
            if other.name != target.name
        ]
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
    preprocessed = nnunet_folder("nnUNet_preprocessed")
    return preprocessed / target.name / "splits_final.json" if preprocessed else None


def problems_of_splits(existing: Path | None, split: Split) -> list[str]:
    """Without --overwrite, splits that nnU-Net would use instead of these are in the way."""
    if existing is None or not existing.exists():
        return []
    try:
        same = read_json(existing, list) == list(split.folds)
    except GuidinoError as error:
        return [f"{error}; remove it or pass --overwrite"]
    return [] if same else [f"{existing}: nnU-Net would use these other splits; remove it or pass --overwrite"]


def install_splits(source: Path, destination: Path) -> None:
    """Put the new splits, or none, where nnU-Net's trainer looks for them.

    Raises:
        GuidinoError: If that cannot be written.
    """
    try:
        if not source.exists():
            destination.unlink(missing_ok=True)
            return
        destination.parent.mkdir(parents=True, exist_ok=True)
        write_text(destination, source.read_text(encoding="utf-8"))
    except (OSError, GuidinoError) as error:
        raise GuidinoError(f"{source.parent} is complete, but {destination} could not be written: {error}") from error


def next_command(target: Path) -> str:
    """nnU-Net's command that comes next; it keeps an older fingerprint of the data unless it is told not to."""
    number = int(target.name[len("Dataset") :].partition("_")[0])
    preprocessed = nnunet_folder("nnUNet_preprocessed")
    old = preprocessed is not None and (preprocessed / target.name / "dataset_fingerprint.json").exists()
    clean = " --clean" if old else ""
    return f"nnUNetv2_plan_and_preprocess -d {number} -c 2d --verify_dataset_integrity{clean}"


def made_of_old_data(target: Path) -> list[str]:
    """What plans and models of an earlier data set of this name there are, a line for each kind."""
    lines = []
    preprocessed, results = nnunet_folder("nnUNet_preprocessed"), nnunet_folder("nnUNet_results")
    if preprocessed and (
        plans := sorted(
            file.stem
            for file in (preprocessed / target.name).glob("*.json")
            if file.stem not in ("dataset", "dataset_fingerprint", "splits_final")
        )
    ):
        lines.append(f"planned for the data before: {', '.join(plans)}; plan again what you go on using")
    if results and (
        models := sorted(folder.name for folder in (results / target.name).glob("*__*__*") if folder.is_dir())
    ):
        lines.append(f"trained on the data before: {', '.join(models)} in {results / target.name}")
    return lines
