"""Pairs of predictions and references by the names of their files."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.folders import folder_of
from nnunetv2_guidino.nnunet.folds import read_folds
from nnunetv2_guidino.printable import check_name


@dataclass(frozen=True)
class PredictedCase:
    """The files of one case."""

    name: str
    reference: Path
    prediction: Path
    image: Path | None = None  # the first channel
    fold: str = ""  # the fold of a model that validated the case


def pair_folders(references: Path, predictions: Path, ending: str) -> list[PredictedCase]:
    """Pair the files of two folders by name.

    Raises:
        GuidinoError: If a file has no counterpart.
    """
    names = set(case_names(references, ending))
    _check_same(names, case_names(predictions, ending), f"the references in {references}", f"in {predictions}")
    return _cases(names, references, predictions, ending)


def pair_folds(
    model_folder: Path, folds: Sequence[str] | None, references: Path | None, dataset_name: str, ending: str
) -> list[PredictedCase]:
    """Pair the validation predictions of a model's folds with the references that nnU-Net validates on.

    Args:
        folds: The default is every numbered fold_X in the model folder.
        references: The default is nnUNet_preprocessed/DATASET/gt_segmentations; splits_final.json lies beside it.

    Raises:
        GuidinoError: If a fold's validation does not hold exactly the cases of its split.
    """
    if references is None:
        advice = "set it, or name the folder gt_segmentations with -gt"
        references = folder_of("nnUNet_preprocessed", advice) / dataset_name / "gt_segmentations"
    found = (path.name.removeprefix("fold_") for path in model_folder.glob("fold_*"))
    folds = list(dict.fromkeys(folds or sorted((name for name in found if name.isdecimal()), key=int)))
    if not folds:
        raise GuidinoError(f"{model_folder} has no folder fold_X of a numbered fold; train one, or use -f all")
    cases = []
    for fold in folds:
        predictions = model_folder / f"fold_{fold}" / "validation"
        if not is_folder(predictions):
            raise GuidinoError(
                f"{predictions} does not exist; finish this fold with nnUNetv2_train … --val, or choose folds with -f"
            )
        expected = _validation_cases(references, fold, ending)
        _check_same(expected, case_names(predictions, ending), f"the split of fold {fold}", f"in {predictions}")
        cases += _cases(expected, references, predictions, ending, fold)
    return cases


def case_names(folder: Path, ending: str) -> list[str]:
    """Return the names, without the ending, of a folder's files with this ending, in order.

    Raises:
        GuidinoError: If there are none, if the folder cannot be read, or if a name cannot be shown.
    """
    names = sorted(
        name.removesuffix(ending)
        for name in file_names(folder)
        if name.endswith(ending) and name != ending and not name.startswith(".")
    )
    if not names:
        raise GuidinoError(f"{folder} holds no *{ending} file")
    for name in names:
        check_name(name, str(folder))
    return names


def is_file(path: Path) -> bool:
    """Return whether the file exists; unlike Path.is_file it takes names that are too long."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Return whether the folder exists; unlike Path.is_dir it takes names that are too long."""
    return os.path.isdir(path)  # noqa: PTH112


def file_names(folder: Path) -> list[str]:
    """Return the names of a folder's entries; raise GuidinoError if it is no folder or cannot be read."""
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise GuidinoError(f"{folder} is not a folder") from error
    except OSError as error:
        raise GuidinoError(f"{folder} cannot be read: {error.strerror or error}") from error


def _cases(
    names: Collection[str], references: Path, predictions: Path, ending: str, fold: str = ""
) -> list[PredictedCase]:
    files = ((name, f"{name}{ending}") for name in sorted(names))
    return [PredictedCase(name, references / file, predictions / file, fold=fold) for name, file in files]


def _validation_cases(references: Path, fold: str, ending: str) -> set[str]:
    if fold == "all":
        return set(case_names(references, ending))
    file = references.parent / "splits_final.json"
    folds = read_folds(file)
    if not fold.isdecimal() or int(fold) >= len(folds):
        raise GuidinoError(f"{file} has {len(folds)} folds; there is no fold {fold}")
    return set(folds[int(fold)]["val"])


def _check_same(expected: set[str], found: Collection[str], expected_in: str, found_in: str) -> None:
    if missing := expected.difference(found):
        raise GuidinoError(f"{listing(missing)} of {expected_in} missing {found_in}; predict them too")
    if extra := set(found) - expected:
        raise GuidinoError(f"{listing(extra)} {found_in}, but not among {expected_in}; move them away")


def listing(names: Collection[str]) -> str:
    """Return `1 case (a)` or `7 cases (a, b, c, d, e, …)`."""
    shown = sorted(names)[:5] + ["…"] * (len(names) > 5)
    return f"{len(names)} case{'s' * (len(names) > 1)} ({', '.join(shown)})"


def with_images(cases: Sequence[PredictedCase], images: Path, ending: str) -> list[PredictedCase]:
    """Return the cases with the first channels of their images; raise GuidinoError if an image is missing."""
    files = {case.name: images / f"{case.name}_0000{ending}" for case in cases}
    if missing := [name for name, file in files.items() if not is_file(file)]:
        raise GuidinoError(f"{images} has no image CASE_0000{ending} for {listing(missing)}")
    return [replace(case, image=files[case.name]) for case in cases]


def guess_ending(folder: Path) -> str:
    """Return the one file ending in the folder that nnU-Net can read; raise GuidinoError for none or several."""
    known = sorted({e for reader in LIST_OF_IO_CLASSES for e in reader.supported_file_endings}, key=len, reverse=True)
    names = [name for name in file_names(folder) if name.endswith(tuple(known)) and not name.startswith(".")]
    found = {next(ending for ending in known if name.endswith(ending)) for name in names}
    if len(found) != 1:
        kinds = f"files of several kinds ({', '.join(sorted(found))})" if found else "no file that nnU-Net can read"
        raise GuidinoError(f"{folder} holds {kinds}; expected one of {', '.join(sorted(known))}")
    return found.pop()
