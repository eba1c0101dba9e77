"""Small segmentations written to files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from skimage import io


def write_pngs(folder: Path, masks: Mapping[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        io.imsave(folder / f"{name}.png", mask.astype(np.uint8), check_contrast=False)
    return folder


def write_nifti(file: Path, array: np.ndarray, spacing: tuple[float, ...] = (1, 1, 1)) -> Path:
    """`array` and `spacing` with the axes (z, y, x)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    sitk.WriteImage(image, str(file))
    return file


def square(row: int, column: int, side: int = 8, shape: tuple[int, int] = (40, 50)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[row : row + side, column : column + side] = 1
    return mask
