"""Small volumes of three channels with references, as files, and what a model of them is told."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

SHAPE, SPACING = (7, 40, 50), (1.0, 1.2, 2.0)  # z, y, x and x, y, z: every slice is resampled to two
PATCH = {"patch_size": (8, 32, 48), "file_ending": ".nii.gz"}
LABELS = {"labels": {"background": 0, "a": 1, "b": 2}}
REGIONS = {"labels": {"background": 0, "whole": [1, 2], "inside": 2}, "regions_class_order": [1, 2]}


def save(array: np.ndarray, file: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin((10, -20, 30))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(image, file)


def write_volumes(folder: Path) -> Path:
    """Two volumes of three channels, a reference and a previous stage's prediction of each."""
    rng = np.random.default_rng(0)
    for name in ("images", "references", "previous"):
        (folder / name).mkdir()
    for case in "ab":
        truth = np.zeros(SHAPE, np.uint8)
        truth[2:5, 10:30, 15:30] = 1
        truth[3:5, 15:25, 20:30] = 2
        for channel in range(3):
            noise = rng.normal(size=SHAPE).astype(np.float32)
            save(truth + noise / 4, folder / "images" / f"{case}_{channel:04d}.nii.gz")
        save(truth, folder / "references" / f"{case}.nii.gz")
        save(np.roll(truth, 5, axis=2), folder / "previous" / f"{case}.nii.gz")
    return folder
