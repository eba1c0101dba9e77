"""Reference, prediction and image of a case from their files, each refused unless it is what it should be."""

from __future__ import annotations

import contextlib
import io
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import numpy.typing as npt
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.evaluation.cases import PredictedCase
from nnunetv2_guidino.evaluation.labels import LabelSet, as_tuple, translation
from nnunetv2_guidino.nnunet.geometry import Affine, affine_of, place_difference, same_spacing
from nnunetv2_guidino.nnunet.images import check_whole

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.integer[Any]]

SAME_PLACE = (
    "Scores compare pixel with pixel, so both must lie in the same place: resample one onto the other or, where only "
    "the header is wrong, copy it over (SimpleITK: image.CopyInformation(reference))"
)


class StoredImage(NamedTuple):
    """What a file holds."""

    array: Array  # (C, H, W) or (C, D, H, W)
    spacing: tuple[float, ...]  # of (H, W) or (D, H, W)
    affine: Affine | None  # of the file's axes (x, y, z); None where the format has no place


class Segmentation(NamedTuple):
    """A label in each pixel."""

    array: Labels  # (H, W) or (D, H, W)
    spacing: tuple[float, ...]
    affine: Affine | None


def find_reader(dataset_json: dict[str, Any], example: Path) -> type:
    """nnU-Net's reader for these files.

    Raises:
        GuidinoError: If the example is damaged, or none of nnU-Net's readers takes it.
    """
    check_whole(example)
    try:  # nnU-Net prints a traceback for each reader it tries
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return determine_reader_writer_from_dataset_json(dataset_json, str(example), verbose=False)
    except Exception as error:  # whatever stands under overwrite_image_reader_writer
        raise GuidinoError(f"{example}: none of nnU-Net's readers can read it. Is the file damaged?") from error


@dataclass(frozen=True)
class PairReader:
    """Reads the files of cases; sent to the processes.

    Args:
        reader: nnU-Net's reader.
        labels: of the references, and of the scores.
        predicted: of the predictions, where other values stand there for the same classes.
    """

    reader: type
    labels: LabelSet
    predicted: LabelSet | None = None

    def read(self, case: PredictedCase) -> tuple[Labels, Labels, tuple[float, ...]]:
        """Reference and prediction as labels (H, W) or (D, H, W), and the spacing of these axes.

        Raises:
            GuidinoError: For a file that cannot be read, for values that are no labels, and if the two do not lie in
                the same place.
        """
        reference = read_labels(
            case.reference, self.reader, self.labels.values, self.labels.ignore, self._advise_reference
        )
        values = (self.predicted or self.labels).values
        prediction = read_labels(case.prediction, self.reader, values, advise=self._advise_prediction)
        check_same_place(case.prediction, prediction, reference)
        if self.predicted is None:
            return reference.array, prediction.array, reference.spacing
        array = np.zeros(prediction.array.shape, reference.array.dtype)
        for value, meant in translation(self.predicted, self.labels).items():
            array[prediction.array == value] = meant
        return reference.array, array, reference.spacing

    def read_image(self, case: PredictedCase) -> Array:
        """The case's image, (C, H, W) or (C, D, H, W); raises GuidinoError unless it lies where the reference does."""
        assert case.image is not None
        image = read(case.image, self.reader, "read_images")
        reference = read(case.reference, self.reader, "read_seg")
        check_same_place(case.image, image._replace(array=image.array[0]), reference._replace(array=reference.array[0]))
        return image.array

    def _advise_reference(self, unknown: Labels) -> str:
        ours = ",".join(f"{name}={'+'.join(map(str, as_tuple(v)))}" for name, v in self.labels.classes.items())
        return (
            "Correct the file or, if other values stand for the classes in the references, name these with "
            f"--labels {self._example(unknown)} (and those in the predictions with --labels-pred {shlex.quote(ours)})"
        )

    def _advise_prediction(self, unknown: Labels) -> str:
        return (
            "Correct the file or, if other values stand for the classes in the predictions, name these with "
            f"--labels-pred {self._example(unknown)}"
        )

    def _example(self, unknown: Labels) -> str:
        """What to type where masks of one class hold one other value, most often 255."""
        if len(self.labels.classes) == 1 and len(unknown) == 1 and float(unknown[0]).is_integer():
            return shlex.quote(f"{next(iter(self.labels.classes))}={unknown[0]:g}")
        return "name=value,…"


def check_same_place(file: Path, found: Segmentation | StoredImage, reference: Segmentation | StoredImage) -> None:
    """Refuse what has another size, spacing, direction or origin than the reference of its case.

    Raises:
        GuidinoError: Names the file, what differs, and what to do.
    """
    shape = reference.array.shape
    if found.array.shape != shape:
        raise GuidinoError(f"{file} has size {found.array.shape}, its reference has {shape}")
    if not same_spacing(found.spacing, reference.spacing):
        raise GuidinoError(f"{file} has spacing {found.spacing}, its reference has {reference.spacing}. {SAME_PLACE}")
    if difference := place_difference(found.affine, reference.affine, shape):
        raise GuidinoError(f"{file} {difference}. {SAME_PLACE}")


def read_labels(
    file: Path,
    reader: type,
    values: Sequence[int],
    ignore: int | None = None,
    advise: Callable[[Labels], str] = lambda _: "Correct the file",
) -> Segmentation:
    """A segmentation as whole numbers.

    Raises:
        GuidinoError: For a file that cannot be read, and for values that are neither labels nor the ignore label.
    """
    array, spacing, affine = read(file, reader, "read_seg")
    if len(array) != 1:
        raise GuidinoError(f"{file} has {len(array)} channels; a segmentation has one, with a label in each pixel")
    allowed = [*values] if ignore is None else [*values, ignore]
    known = np.zeros(array.shape, bool)  # one byte a pixel: numpy's own functions for sets take sixteen
    for value in allowed:
        known |= array == value
    unknown = np.unique(array[~known])
    if unknown.size:
        found = ", ".join(f"{value:g}" for value in unknown[:5])
        raise GuidinoError(
            f"{file} holds {found}{', …' if unknown.size > 5 else ''}; the labels are {allowed}. {advise(unknown)}"
        )
    return Segmentation(array[0].astype(np.uint8 if max(allowed) < 256 else np.int32), spacing, affine)


def read(file: Path, reader: type, method: str) -> StoredImage:
    """An image ("read_images") or segmentation ("read_seg"). The depth of 1 that nnU-Net gives one slice is dropped.

    Raises:
        GuidinoError: If the file is not there, damaged, or nothing that nnU-Net's reader takes.
    """
    check_whole(file)
    try:  # nnU-Net's readers print remarks for every file
        with contextlib.redirect_stdout(io.StringIO()):
            array, properties = getattr(reader(), method)(str(file) if method == "read_seg" else (str(file),))
        spacing = tuple(float(s) for s in properties["spacing"])
        if method == "read_seg" and file.name.endswith(".nii.gz") and not _is_finite(file):
            array[0].flat[0] = np.nan
    except Exception as error:  # each reader's library has its own
        raise GuidinoError(f"{file} cannot be read: {str(error).strip() or type(error).__name__}") from error
    affine = affine_of(properties)
    return StoredImage(array[:, 0], spacing[1:], affine) if array.shape[1] == 1 else StoredImage(array, spacing, affine)


def _is_finite(nifti: Path) -> bool:
    """Whether no value is NaN or infinite; ITK, which nnU-Net reads NIfTI with, shows these as 0."""
    stored = nibabel.load(nifti).dataobj
    return stored.dtype.kind != "f" or bool(np.isfinite(np.asarray(stored)).all())
