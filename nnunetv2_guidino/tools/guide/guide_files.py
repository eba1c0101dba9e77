"""Find the image files of each case in a folder; write guides as files on their image's grid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813
import tifffile
from nibabel.orientations import io_orientation, ornt_transform
from PIL import Image

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.evaluation.cases import case_names, listing

Guide = npt.NDArray[np.float32]


def image_files(folder: Path, ending: str) -> dict[str, list[Path]]:
    """Return the files of each case's channels (CASE_0000, CASE_0001 and so on) by the case's name.

    Raises:
        GuidinoError: If there are no images, or if a case lacks a channel that other cases have.
    """
    channels: dict[str, list[str]] = {}
    for name in case_names(folder, ending):
        match = re.fullmatch(r"(.+)_(\d{4})", name)
        if match is None:
            raise GuidinoError(
                f"{folder / name}{ending}: expected CASE_0000{ending}, as nnU-Net names the first channel"
            )
        channels.setdefault(match[1], []).append(match[2])
    expected = [f"{i:04d}" for i in range(max(map(len, channels.values())))]
    if odd := [case for case, found in channels.items() if found != expected]:
        raise GuidinoError(
            f"{folder}: channels {', '.join(expected)} are expected of every case, but not all and no "
            f"others are there for {listing(odd)}"
        )
    return {case: [folder / f"{case}_{c}{ending}" for c in found] for case, found in channels.items()}


def save_guide(guide: Guide, file: Path, properties: dict[str, Any]) -> None:
    """Write a guide in its image's format: float32 as NIfTI, another volume or TIFF, 0…255 as PNG or BMP.

    Args:
        guide: (D, H, W) in [0, 1]; D is 1 for 2D images.
        file: The file; its ending names the format.
        properties: The image's properties from nnU-Net's reader.
    """
    if "sitk_stuff" in properties:
        _save_itk(guide, file, **properties["sitk_stuff"])
    elif "nibabel_stuff" in properties:
        _save_nifti(guide, file, **properties["nibabel_stuff"])
    elif file.suffix in (".tif", ".tiff"):
        tifffile.imwrite(file, guide[0] if len(guide) == 1 else guide, compression="zlib")
    else:
        Image.fromarray((255 * guide[0]).round().astype(np.uint8)).save(file)


def _save_itk(
    guide: Guide,
    file: Path,
    spacing: Sequence[float],
    origin: Sequence[float],
    direction: Sequence[float],
    original_orientation: str | None = None,
) -> None:
    image = sitk.GetImageFromArray(guide[0] if len(spacing) == 2 else guide)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    if original_orientation:  # the reader turned the image
        image = sitk.DICOMOrient(image, original_orientation)
    sitk.WriteImage(image, str(file), useCompression=True)


def _save_nifti(
    guide: Guide, file: Path, original_affine: npt.NDArray[Any], reoriented_affine: npt.NDArray[Any] | None = None
) -> None:
    affine = original_affine if reoriented_affine is None else reoriented_affine
    image = nibabel.Nifti1Image(guide.transpose(2, 1, 0), affine)  # nnU-Net's order of axes is ITK's
    turn = ornt_transform(io_orientation(affine), io_orientation(original_affine))
    nibabel.save(image.as_reoriented(turn), file)
