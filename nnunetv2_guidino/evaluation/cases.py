"""Which prediction belongs to which reference, and how their files are read."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES, determine_reader_writer_from_dataset_json

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.evaluation.labels import LabelSet, read_json

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    name: str
    reference: Path
    prediction: Path
    image: Path | None = None  # its first channel file
    fold: str = ""  # of a model's validation


def pair_folders(references: Path, predictions: Path, ending: str) -> list[Case]:
    """Pair the files of two folders by name. A file without a counterpart is an error."""
    names = {folder: set(case_names(folder, ending)) for folder in (references, predictions)}
    _same_cases(names[references], names[predictions], f"the references in {references}", f"in {predictions}")
    return _cases(names[references], references, predictions, ending)


def pair_folds(
    model_folder: Path, folds: Sequence[str] | None, references: Path | None, dataset_name: str, ending: str
) -> list[Case]:
    """Pair the validation predictions of a trained model's folds with the references that nnU-Net validates on.

    Args:
        folds: by default every numbered fold_X in the model folder.
        references: by default nnUNet_preprocessed/DATASET/gt_segmentations. splits_final.json is expected beside it.

    Raises GuidinoError unless every fold's validation holds exactly the cases of its split.
    """
    references = references or _preprocessed() / dataset_name / "gt_segmentations"
    folds = folds or sorted(path.name[5:] for path in model_folder.glob("fold_*") if path.name[5:].isdigit())
    if not folds:
        raise GuidinoError(f"{model_folder} has no folder fold_X with a numbered fold: train one, or say -f all")
    cases = []
    for fold in folds:
        predictions = model_folder / f"fold_{fold}" / "validation"
        if not predictions.is_dir():
            raise GuidinoError(
                f"{predictions} does not exist: finish this fold with nnUNetv2_train … --val, or choose folds with -f"
            )
        expected = _validation_cases(references, fold, ending)
        _same_cases(expected, set(case_names(predictions, ending)), f"the split of fold {fold}", f"in {predictions}")
        cases += _cases(expected, references, predictions, ending, fold)
    return cases


def case_names(folder: Path, ending: str) -> list[str]:
    if not folder.is_dir():
        raise GuidinoError(f"{folder} is not a folder")
    files = (path.name for path in folder.iterdir() if not path.name.startswith("."))
    names = sorted(name.removesuffix(ending) for name in files if name.endswith(ending))
    if not names:
        raise GuidinoError(f"{folder} holds no *{ending} file")
    return names


def _cases(names: Collection[str], references: Path, predictions: Path, ending: str, fold: str = "") -> list[Case]:
    return [Case(n, references / f"{n}{ending}", predictions / f"{n}{ending}", fold=fold) for n in sorted(names)]


def _validation_cases(references: Path, fold: str, ending: str) -> set[str]:
    if fold == "all":
        return set(case_names(references, ending))
    splits = read_json(references.parent / "splits_final.json")
    if int(fold) >= len(splits):
        raise GuidinoError(f"{references.parent / 'splits_final.json'} has {len(splits)} folds, not a fold {fold}")
    return set(splits[int(fold)]["val"])


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


def with_images(cases: Sequence[Case], images: Path, ending: str) -> list[Case]:
    """Each case with the first channel of its image. A missing image is an error."""
    with_image = [Case(c.name, c.reference, c.prediction, images / f"{c.name}_0000{ending}", c.fold) for c in cases]
    if missing := [case.name for case in with_image if case.image and not case.image.is_file()]:
        raise GuidinoError(f"{images} has no image CASE_0000{ending} for {listing(missing)}")
    return with_image


def guess_ending(folder: Path) -> str:
    """The one file ending in the folder that nnU-Net can read."""
    known = sorted({e for reader in LIST_OF_IO_CLASSES for e in reader.supported_file_endings}, key=len, reverse=True)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = {next(e for e in known if name.endswith(e)) for name in names if name.endswith(tuple(known))}
    if len(found) != 1:
        what = f"files of several kinds ({', '.join(sorted(found))})" if found else "no file that nnU-Net can read"
        raise GuidinoError(f"{folder} holds {what}; expected one of {', '.join(sorted(known))}")
    return found.pop()


def find_reader(dataset_json: dict[str, Any], example: Path) -> type:
    """nnU-Net's reader for these files."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # nnU-Net prints a traceback for each reader it tries
            return determine_reader_writer_from_dataset_json(dataset_json, str(example), verbose=False)
    except RuntimeError as error:
        raise GuidinoError(f"{example}: none of nnU-Net's readers can read it. Is the file damaged?") from error


def read_pair(case: Case, reader: type, labels: LabelSet) -> tuple[Array, Array, tuple[float, ...]]:
    """Reference and prediction as integers (H, W) or (D, H, W), and the spacing of these axes.

    Raises GuidinoError for a file that cannot be read, for values that are no labels, and for different geometry.
    """
    reference, spacing = read_labels(case.reference, reader, labels.values, labels.ignore)
    prediction, prediction_spacing = read_labels(case.prediction, reader, labels.values)
    if reference.shape != prediction.shape:
        raise GuidinoError(f"{case.prediction} has size {prediction.shape}, its reference has {reference.shape}")
    if not np.allclose(spacing, prediction_spacing, rtol=1e-3):
        raise GuidinoError(f"{case.prediction} has spacing {prediction_spacing}, its reference has {spacing}")
    return reference, prediction, spacing


def read_labels(
    file: Path, reader: type, values: list[int], ignore: int | None = None
) -> tuple[Array, tuple[float, ...]]:
    """A segmentation as integers (H, W) or (D, H, W), and its spacing.

    Raises GuidinoError for a file that cannot be read, and for values that are neither labels nor the ignore label.
    """
    array, spacing = read(file, reader, "read_seg")
    if len(array) != 1:
        raise GuidinoError(f"{file} has {len(array)} channels; a segmentation has one, with a label in each pixel")
    allowed = values if ignore is None else [*values, ignore]
    unknown = np.setdiff1d(array, allowed)
    if file.name.endswith(".nii.gz") and not _is_finite(file):
        unknown = np.array([np.nan])
    if unknown.size:
        found = ", ".join(f"{value:g}" for value in unknown[:5])
        raise GuidinoError(
            f"{file} holds {found}{', …' if unknown.size > 5 else ''}; the labels are {allowed}. "
            "Correct the file, or name its labels with --labels name=value,…"
        )
    return array[0].astype(np.int32), spacing


def _is_finite(nifti: Path) -> bool:
    """Whether no value is NaN or infinite; ITK, which nnU-Net reads NIfTI with, shows these as 0."""
    stored = nibabel.load(nifti).dataobj
    return stored.dtype.kind != "f" or bool(np.isfinite(np.asarray(stored)).all())


def read(file: Path, reader: type, method: str) -> tuple[Array, tuple[float, ...]]:
    """Array (C, H, W) or (C, D, H, W) and spacing; nnU-Net gives images of one slice a depth of 1, dropped here."""
    try:
        array, properties = getattr(reader(), method)(str(file) if method == "read_seg" else (str(file),))
    except Exception as error:  # each reader's library has its own
        raise GuidinoError(f"{file} cannot be read: {str(error).strip() or type(error).__name__}") from error
    spacing = tuple(float(s) for s in properties["spacing"])
    return (array[:, 0], spacing[1:]) if array.shape[1] == 1 else (array, spacing)
