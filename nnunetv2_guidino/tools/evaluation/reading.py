"""Readers of a case's reference, prediction and image, which refuse damaged and unfitting files."""

from __future__ import annotations

import contextlib
import io
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import numpy.typing as npt
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.geometry import Affine, affine_of, place_difference, same_spacing
from nnunetv2_guidino.nnunet.images import check_whole
from nnunetv2_guidino.tools.evaluation.cases import PredictedCase
from nnunetv2_guidino.tools.evaluation.scored_labels import LabelSet, as_tuple, translation

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.integer[Any]]

SAME_PLACE = (
    "Scores compare pixel with pixel, so both must lie in the same place: resample one onto the other or, if only the "
    "header is wrong, copy the header (SimpleITK: image.CopyInformation(reference))"
)


class StoredImage(NamedTuple):
    """An image or a segmentation as its file stores it."""

    array: Array  # an image (C, H, W) or (C, D, H, W), or labels (H, W) or (D, H, W)
    spacing: tuple[float, ...]  # of (H, W) or (D, H, W)
    affine: Affine | None  # of the file's axes (x, y, z); None for a format without a place


def find_reader(dataset_json: dict[str, Any], example: Path) -> type:
    """Return nnU-Net's reader for these files.

    Raises:
        GuidinoError: If the example is damaged, or if none of nnU-Net's readers can read it.
    """
    check_whole(example)
    try:  # nnU-Net prints a traceback for each reader that it tries
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return determine_reader_writer_from_dataset_json(dataset_json, str(example), verbose=False)
    except Exception as error:  # overwrite_image_reader_writer may name anything
        raise GuidinoError(f"{example}: none of nnU-Net's readers can read it; check that it is not damaged") from error


@dataclass(frozen=True)
class PairReader:
    """Reads the files of cases; every process gets a copy.

    Args:
        reader: nnU-Net's reader.
        labels: The labels of the references, and the classes to score.
        predicted: The labels of the predictions if they have other values for the same classes.
    """

    reader: type
    labels: LabelSet
    predicted: LabelSet | None = None

    def read(self, case: PredictedCase) -> tuple[Labels, Labels, tuple[float, ...]]:
        """Return reference and prediction as labels (H, W) or (D, H, W), and the spacing of these axes.

        Raises:
            GuidinoError: If a file cannot be read, holds other values than the labels, or if the places differ.
        """
        classes = ",".join(f"{name}={'+'.join(map(str, as_tuple(v)))}" for name, v in self.labels.classes.items())
        note = f" (and name those of the predictions with --labels-pred {shlex.quote(classes)})"
        reference = read_labels(case.reference, self.reader, self.labels, self.labels.ignore, "--labels", note)
        prediction = read_labels(case.prediction, self.reader, self.predicted or self.labels, option="--labels-pred")
        check_same_place(case.prediction, prediction, reference)
        if self.predicted is None:
            return reference.array, prediction.array, reference.spacing
        array = np.zeros(prediction.array.shape, reference.array.dtype)
        for value, reference_value in translation(self.predicted, self.labels).items():
            array[prediction.array == value] = reference_value
        return reference.array, array, reference.spacing

    def read_image(self, case: PredictedCase) -> Array:
        """Return the case's image (C, H, W) or (C, D, H, W); raise GuidinoError if its place is not the reference's."""
        assert case.image is not None
        image = read(case.image, self.reader, "read_images")
        reference = read(case.reference, self.reader, "read_seg")
        check_same_place(case.image, image._replace(array=image.array[0]), reference._replace(array=reference.array[0]))
        return image.array


def check_same_place(file: Path, found: StoredImage, reference: StoredImage) -> None:
    """Refuse an image whose size, spacing, direction or origin differs from its reference's.

    Raises:
        GuidinoError: With the file, the difference and the remedy.
    """
    shape = reference.array.shape
    if found.array.shape != shape:
        raise GuidinoError(f"{file} has size {found.array.shape}, its reference has {shape}")
    if not same_spacing(found.spacing, reference.spacing):
        raise GuidinoError(f"{file} has spacing {found.spacing}, its reference has {reference.spacing}. {SAME_PLACE}")
    if difference := place_difference(found.affine, reference.affine, shape):
        raise GuidinoError(f"{file} {difference}. {SAME_PLACE}")


def read_labels(
    file: Path, reader: type, labels: LabelSet, ignore: int | None = None, option: str = "", note: str = ""
) -> StoredImage:
    """Read a segmentation as whole numbers.

    Args:
        labels: The labels that the file may hold.
        ignore: The ignore label, if the file may hold it.
        option: The option that names other label values, for the error message, and a note on it.

    Raises:
        GuidinoError: If the file cannot be read, or if a value is neither a label nor the ignore label.
    """
    array, spacing, affine = read(file, reader, "read_seg")
    if len(array) != 1:
        raise GuidinoError(f"{file} has {len(array)} channels; a segmentation has one, with a label in each pixel")
    allowed = labels.values if ignore is None else [*labels.values, ignore]
    unknown = np.unique(array[~np.isin(array, allowed, kind="sort")])  # this kind needs one byte per pixel
    if unknown.size:
        found = ", ".join([f"{value:g}" for value in unknown[:5]] + ["…"] * (unknown.size > 5))
        example = "name=value,…"
        if len(labels.classes) == unknown.size == 1 and float(unknown[0]).is_integer():  # most often 255 for 1
            example = shlex.quote(f"{next(iter(labels.classes))}={unknown[0]:g}")
        other = f" or, if other values stand for its classes, name them with {option} {example}{note}" if option else ""
        raise GuidinoError(f"{file} holds {found}; the labels are {allowed}. Correct the file{other}")
    return StoredImage(array[0].astype(np.uint8 if max(allowed) < 256 else np.int32), spacing, affine)


def read(file: Path, reader: type, method: str) -> StoredImage:
    """Read an image ("read_images") or segmentation ("read_seg") without the depth of 1 that nnU-Net gives one slice.

    Raises:
        GuidinoError: If the file is missing or damaged, or if nnU-Net's reader cannot read it.
    """
    check_whole(file)
    try:  # nnU-Net's readers print remarks on every file
        with contextlib.redirect_stdout(io.StringIO()):
            array, properties = getattr(reader(), method)(str(file) if method == "read_seg" else (str(file),))
        spacing = tuple(float(s) for s in properties["spacing"])
        if method == "read_seg" and file.name.endswith(".nii.gz") and not _is_finite(file):
            array[0].flat[0] = np.nan  # the caller refuses the file for it
    except Exception as error:  # every reader's library has errors of its own
        raise GuidinoError(f"{file} cannot be read: {str(error).strip() or type(error).__name__}") from error
    if not all(math.isfinite(side) and side > 0 for side in spacing):
        raise GuidinoError(f"{file} has spacing {spacing}; expected numbers above 0, because distances depend on it")
    affine = affine_of(properties)
    return StoredImage(array[:, 0], spacing[1:], affine) if array.shape[1] == 1 else StoredImage(array, spacing, affine)


def _is_finite(nifti: Path) -> bool:
    """Return whether a NIfTI file holds no NaN or infinite value; nnU-Net reads with ITK, which turns them into 0."""
    stored = nibabel.load(nifti).dataobj
    return stored.dtype.kind != "f" or bool(np.isfinite(np.asarray(stored)).all())
