"""The place of a data set in nnU-Net's folders."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json, write_text
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
    return raw.absolute() / f"Dataset{dataset_id:03d}_{name}"


def _id(target: Path) -> str:
    return target.name[len("Dataset") :].partition("_")[0]


def problems_of_target(target: Path, overwrite: bool) -> list[str]:
    """Return why the data set cannot be written to `target`: the folder exists, or another data set has its id.

    Raises:
        GuidinoError: If one of nnU-Net's folders cannot be read.
    """
    problems = []
    if target.exists() and not overwrite:
        problems.append(f"{target}: exists; pass --overwrite to replace it")
    for folder in sorted({target.parent, *filter(None, map(find_folder, VARIABLES))}):
        try:
            others = [other for other in folder.iterdir() if other.name.startswith(f"Dataset{_id(target)}_")]
        except (FileNotFoundError, NotADirectoryError):  # writing to it reports this
            continue
        except OSError as error:
            raise GuidinoError(f"{folder} cannot be read: {error.strerror or error}") from error
        problems += [
            f"{other}: has the id {int(_id(target))} already, which nnU-Net allows once; pass another id with -d"
            for other in others
            if other.name != target.name
        ]
    return problems


def warnings_of_leftovers(target: Path) -> list[str]:
    """Return a warning for each folder that a killed conversion left beside `target`."""
    warnings = []
    for leftover in target.parent.glob(f".{target.name}.*"):
        advice = "delete it" if ".incomplete-" in leftover.name or target.exists() else f"rename it to {target.name}"
        warnings.append(f"{leftover} is left of a conversion that was killed; {advice}")
    return warnings


def problems_of_splits(target: Path, split: Split) -> list[str]:
    """Return a problem if nnU-Net's trainer would find other splits than these."""
    existing = _preprocessed(target, "splits_final.json")
    if existing is None or not existing.exists():
        return []
    try:
        if read_json(existing, list) == list(split.folds):
            return []
        return [f"{existing}: nnU-Net would use these other splits; remove it or pass --overwrite"]
    except GuidinoError as error:
        return [f"{error}; remove it or pass --overwrite"]


def _preprocessed(target: Path, name: str = "") -> Path | None:
    """Return the data set's preprocessed folder, or a file in it; None if nnUNet_preprocessed is not set."""
    preprocessed = find_folder("nnUNet_preprocessed")
    return preprocessed / target.name / name if preprocessed else None


def install_splits(target: Path) -> None:
    """Copy the splits of the data set to the place where nnU-Net's trainer looks for them, or remove old splits there.

    Raises:
        GuidinoError: If the copy cannot be written.
    """
    source, destination = target / "splits_final.json", _preprocessed(target, "splits_final.json")
    if destination is None:
        return
    try:
        if not source.exists():
            destination.unlink(missing_ok=True)
            return
        destination.parent.mkdir(parents=True, exist_ok=True)
        write_text(destination, source.read_text(encoding="utf-8"))
    except (OSError, GuidinoError) as error:
        raise GuidinoError(f"{target} is complete, but {destination} could not be written: {error}") from error


def next_command(target: Path) -> str:
    """Return nnU-Net's next command; only --clean makes nnU-Net replace an old fingerprint of the data."""
    fingerprint = _preprocessed(target, "dataset_fingerprint.json")
    clean = " --clean" if fingerprint and fingerprint.exists() else ""
    return f"nnUNetv2_plan_and_preprocess -d {int(_id(target))} -c 2d --verify_dataset_integrity{clean}"


def outdated_results(target: Path) -> list[str]:
    """Return a warning on the plans, and one on the models, of an earlier data set of this name."""
    plans, models = _preprocessed(target), find_folder("nnUNet_results")
    data = ("dataset", "dataset_fingerprint", "splits_final")
    warnings = []
    if plans and (names := sorted(file.stem for file in plans.glob("*.json") if file.stem not in data)):
        warnings.append(f"planned for the data before: {', '.join(names)}; plan again those that you use")
    if models and (names := sorted(path.name for path in (models / target.name).glob("*__*__*") if path.is_dir())):
        warnings.append(f"trained on the data before: {', '.join(names)} in {models / target.name}")
    return warnings


@contextmanager
def complete_or_absent(target: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a folder to fill, and rename it to `target` at the end.

    If anything fails before, SIGTERM too, the folder is removed and `target` stays as it was. A data set of this name
    or id that another conversion has written meanwhile is kept, unless `overwrite`.

    Raises:
        GuidinoError: If another conversion was faster, or the folder cannot be written.
    """
    mark = f"{os.getpid()}-{secrets.token_hex(4)}"
    folder, old = (target.with_name(f".{target.name}.{state}-{mark}") for state in ("incomplete", "old"))
    try:
        with _sigterm_as_exit():
            folder.mkdir(parents=True)
            yield folder
            with _locked(target.parent):
                if problems := problems_of_target(target, overwrite):
                    raise GuidinoError(f"{problems[0]}. It came while this conversion ran, which changed nothing")
                try:
                    if target.exists():
                        target.rename(old)
                    folder.rename(target)
                finally:
                    if old.exists() and not target.exists():
                        old.rename(target)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise GuidinoError(f"{target} could not be written: {error}; nothing was changed") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, so that unfinished folders are removed."""

    def stop(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, if the system and the file system have locks."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have none, and two moves rarely meet
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
