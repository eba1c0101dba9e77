"""Place a data set in nnU-Net's folders, and find what they hold of earlier data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import UNFINISHED, locked, read_json, whole_folder, write_text
from nnunetv2_guidino.nnunet.folders import VARIABLES, find_folder
from nnunetv2_guidino.tools.conversion.dataset import Split


def target_folder(output: Path | None, dataset_id: int, name: str) -> Path:
    """Return DatasetXXX_NAME below `output`, or below nnU-Net's variable nnUNet_raw.

    Raises:
        GuidinoError: If there is no folder, the id is not 1 to 999, or the name is empty.
    """
    raw = output or find_folder("nnUNet_raw")
    if raw is None:
        state = "is set to nothing" if "nnUNet_raw" in os.environ else "is not set"
        raise GuidinoError(f"no output folder: the environment variable nnUNet_raw {state}; set it, or pass -o FOLDER")
    if not 1 <= dataset_id <= 999:
        raise GuidinoError(f"-d {dataset_id}: nnU-Net's data set ids are 1 to 999")
    if not name.strip("_"):
        raise GuidinoError("the data set has no name; pass --name")
    return Path(raw).absolute() / f"Dataset{dataset_id:03d}_{name}"


def _folder_in(variable: str, target: Path) -> Path | None:
    """Return the data set's folder below one of nnU-Net's variables; None if the variable is not set."""
    folder = find_folder(variable)
    return folder.absolute() / target.name if folder else None


def _splits_in_use(target: Path) -> Path | None:
    """Return the file in which nnU-Net's trainer looks for splits; None if nnUNet_preprocessed is not set."""
    preprocessed = _folder_in("nnUNet_preprocessed", target)
    return preprocessed / "splits_final.json" if preprocessed else None


def problems_of_target(target: Path, split: Split, overwrite: bool) -> list[str]:
    """Return the reasons why the data set cannot be written to `target`.

    The folder may exist, another data set may have its id, or nnU-Net's trainer would find other splits.

    Raises:
        GuidinoError: If one of nnU-Net's folders cannot be read.
    """
    problems = []
    if target.exists() and not overwrite:
        problems.append(f"{target}: exists; pass --overwrite to replace it")
    prefix, _, _ = target.name.partition("_")
    places = [target, *(_folder_in(variable, target) for variable in VARIABLES)]
    for folder in sorted({place.parent for place in places if place}):
        try:
            names = [other.name for other in folder.iterdir() if other.name.startswith(f"{prefix}_")]
        except (FileNotFoundError, NotADirectoryError):  # writing to it reports this
            continue
        except OSError as error:
            raise GuidinoError(f"{folder} cannot be read: {error.strerror or error}") from error
        problems += [
            f"{folder / name}: has the id {int(target.name[7:10])} already, which nnU-Net allows once; pass another id "
            "with -d"
            for name in names
            if name != target.name
        ]
    splits = _splits_in_use(target)
    if splits and splits.exists() and not overwrite:
        try:
            if read_json(splits, list) != list(split.folds):
                problems.append(f"{splits}: nnU-Net would use these other splits; remove it or pass --overwrite")
        except GuidinoError as error:
            problems.append(f"{error}; remove it or pass --overwrite")
    return problems


@contextmanager
def raw_folder(target: Path, split: Split, overwrite: bool) -> Iterator[Path]:
    """Yield a folder to fill, and move it to `target` at the end; then install its splits.

    If anything fails before, the folder is removed and `target` stays as it was. A data set of this name or id that
    another conversion has written meanwhile is kept, unless `overwrite`.

    Raises:
        GuidinoError: If another conversion was faster, or the folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GuidinoError(f"{target} cannot be written: {error.strerror or error}") from error
    with ExitStack() as until_moved, whole_folder(target, overwrite) as folder:
        yield folder
        until_moved.enter_context(locked(target.parent / f"{UNFINISHED}datasets.lock"))
        if problems := problems_of_target(target, split, overwrite):
            raise GuidinoError(f"{problems[0]}. It came while this conversion ran, which changed nothing")
    _install_splits(target)


def _install_splits(target: Path) -> None:
    """Copy the splits of the data set to the place where nnU-Net's trainer looks for them, or remove old splits there.

    Raises:
        GuidinoError: If the copy cannot be written.
    """
    source, splits = target / "splits_final.json", _splits_in_use(target)
    if splits is None:
        return
    try:
        if source.exists():
            splits.parent.mkdir(parents=True, exist_ok=True)
            write_text(splits, source.read_text(encoding="utf-8"))
        else:
            splits.unlink(missing_ok=True)
    except (OSError, GuidinoError) as error:
        raise GuidinoError(f"{target} is complete, but {splits} could not be written: {error}") from error


def next_command(target: Path) -> str:
    """Return nnU-Net's next command; only --clean makes nnU-Net replace an old fingerprint of the data."""
    preprocessed = _folder_in("nnUNet_preprocessed", target)
    clean = " --clean" if preprocessed and (preprocessed / "dataset_fingerprint.json").exists() else ""
    return f"nnUNetv2_plan_and_preprocess -d {int(target.name[7:10])} -c 2d --verify_dataset_integrity{clean}"


def outdated_results(target: Path) -> list[str]:
    """Return a warning on the plans, and one on the models, of an earlier data set of this name."""
    plans, models = _folder_in("nnUNet_preprocessed", target), _folder_in("nnUNet_results", target)
    data = ("dataset", "dataset_fingerprint", "splits_final")
    warnings = []
    if plans and (names := sorted(file.stem for file in plans.glob("*.json") if file.stem not in data)):
        warnings.append(f"planned for the data before: {', '.join(names)}; plan again those that you use")
    if models and (names := sorted(path.name for path in models.glob("*__*__*") if path.is_dir())):
        warnings.append(f"trained on the data before: {', '.join(names)} in {models}")
    return warnings
