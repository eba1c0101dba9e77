"""Which prediction belongs to which reference."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.evaluation.text import check_name
from nnunetv2_guidino.files import read_json


@dataclass(frozen=True)
class PredictedCase:
    """The files of one case: what is true, and what a method predicts."""

    name: str
    reference: Path
    prediction: Path
    image: Path | None = None  # its first channel file
    fold: str = ""  # of a model's validation


def pair_folders(references: Path, predictions: Path, ending: str) -> list[PredictedCase]:
    """Pair the files of two folders by name. A file without a counterpart is an error."""
    names = {folder: set(case_names(folder, ending)) for folder in (references, predictions)}
    _same_cases(names[references], names[predictions], f"the references in {references}", f"in {predictions}")
    return _cases(names[references], references, predictions, ending)


def pair_folds(
    model_folder: Path, folds: Sequence[str] | None, references: Path | None, dataset_name: str, ending: str
) -> list[PredictedCase]:
    """Pair the validation predictions of a trained model's folds with the references that nnU-Net validates on.

    Args:
        folds: by default every numbered fold_X in the model folder.
        references: by default nnUNet_preprocessed/DATASET/gt_segmentations. splits_final.json is expected beside it.

    Raises GuidinoError unless every fold's validation holds exactly the cases of its split.
    """
    references = references or _preprocessed() / dataset_name / "gt_segmentations"
    folds = list(dict.fromkeys(folds or numbered_folds(model_folder)))
    if not folds:
        raise GuidinoError(f"{model_folder} has no folder fold_X with a numbered fold: train one, or say -f all")
    cases = []
    for fold in folds:
        predictions = model_folder / f"fold_{fold}" / "validation"
        if not is_folder(predictions):
            raise GuidinoError(
                f"{predictions} does not exist: finish this fold with nnUNetv2_train … --val, or choose folds with -f"
            )
        expected = _validation_cases(references, fold, ending)
        _same_cases(expected, set(case_names(predictions, ending)), f"the split of fold {fold}", f"in {predictions}")
        cases += _cases(expected, references, predictions, ending, fold)
    return cases


def numbered_folds(model_folder: Path) -> list[str]:
    """The numbers X of the folders fold_X, in order."""
    found = [path.name.removeprefix("fold_") for path in model_folder.glob("fold_*")]
    return sorted((name for name in found if name.isdecimal()), key=int)


def case_names(folder: Path, ending: str) -> list[str]:
    """Names of a folder's files with this ending, without it, in order.

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
    """Whether there is such a file; a path that cannot be (a name too long) is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder."""
    try:
        return path.is_dir()
    except OSError:
        return False


def file_names(folder: Path) -> list[str]:
    """The names of all that lies in a folder; raises GuidinoError if it is none, or cannot be read."""
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
    splits = read_json(file, list)
    if not fold.isdecimal() or int(fold) >= len(splits):
        raise GuidinoError(f"{file} has {len(splits)} folds, not a fold {fold}")
    split = splits[int(fold)]
    cases = split.get("val") if isinstance(split, dict) else None
    if not isinstance(cases, list) or not all(isinstance(case, str) for case in cases):
        raise GuidinoError(f'{file}: fold {fold} is no object with "val": [names of cases]')
    return set(cases)


def _preprocessed() -> Path:
    folder = os.environ.get("nnUNet_preprocessed")
    if not folder:
        raise GuidinoError("nnUNet_preprocessed is not set: set it, or say with -gt where gt_segmentations are")
    return Path(folder)


def _same_cases(expected: set[str], found: set[str], where_expected: str, where_found: str) -> None:
    if missing := expected - found:
        raise GuidinoError(f"{listing(missing)} of {where_expected} missing {where_found}; predict them too")
    if extra := found - expected:
        raise GuidinoError(f"{listing(extra)} {where_found}, but not among {where_expected}; move them away")


def listing(names: Collection[str]) -> str:
    """`1 case (a)`, `7 cases (a, b, c, d, e, …)`."""
    shown = sorted(names)[:5] + ["…"] * (len(names) > 5)
    return f"{len(names)} case{'s' * (len(names) > 1)} ({', '.join(shown)})"


def with_images(cases: Sequence[PredictedCase], images: Path, ending: str) -> list[PredictedCase]:
    """Each case with the first channel of its image. A missing image is an error."""
    with_image = [replace(case, image=images / f"{case.name}_0000{ending}") for case in cases]
    if missing := [case.name for case in with_image if case.image and not is_file(case.image)]:
        raise GuidinoError(f"{images} has no image CASE_0000{ending} for {listing(missing)}")
    return with_image


def guess_ending(folder: Path) -> str:
    """The one file ending in the folder that nnU-Net can read; raises GuidinoError if there is none or several."""
    known = sorted({e for reader in LIST_OF_IO_CLASSES for e in reader.supported_file_endings}, key=len, reverse=True)
    names = [name for name in file_names(folder) if name.endswith(tuple(known)) and not name.startswith(".")]
    found = {next(ending for ending in known if name.endswith(ending)) for name in names}
    if len(found) != 1:
        what = f"files of several kinds ({', '.join(sorted(found))})" if found else "no file that nnU-Net can read"
        raise GuidinoError(f"{folder} holds {what}; expected one of {', '.join(sorted(known))}")
    return found.pop()
