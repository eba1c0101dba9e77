"""Data sets from the hippocampus of the Medical Segmentation Decathlon: labels or regions, all or half annotated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk  # noqa: N813

LABELS = {"background": 0, "anterior": 1, "posterior": 2}
REGIONS = {"background": 0, "hippocampus": [1, 2], "posterior": 2}
IGNORE = 3


class Variant(NamedTuple):
    """What nnU-Net is told about the same cases."""

    number: int
    name: str
    regions: bool = False
    ignore: bool = False

    @property
    def dataset(self) -> str:
        return f"Dataset{self.number}_Hippocampus{self.name}"

    def description(self) -> dict[str, Any]:
        """Of dataset.json."""
        labels: dict[str, Any] = dict(REGIONS if self.regions else LABELS)
        if self.ignore:
            labels["ignore"] = IGNORE
        return {"labels": labels, **({"regions_class_order": [1, 2]} if self.regions else {})}


VARIANTS = (
    Variant(911, "Labels"),
    Variant(912, "Regions", regions=True),
    Variant(913, "LabelsIgnore", ignore=True),
    Variant(914, "RegionsIgnore", regions=True, ignore=True),
)


def case_names(source: Path) -> list[str]:
    return sorted(path.name.removesuffix(".nii.gz") for path in (source / "imagesTr").glob("*.nii.gz"))


def write_hippocampus(source: Path, raw: Path, variant: Variant, training: Sequence[str], test: Sequence[str]) -> None:
    """Into the folder nnUNet_raw.

    Args:
        source: With imagesTr/CASE.nii.gz and labelsTr/CASE.nii.gz.
        training, test: Names of cases.
    """
    folder = raw / variant.dataset
    for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / part).mkdir(parents=True)
    for part, names in (("Tr", training), ("Ts", test)):
        for name in names:
            shutil.copy(source / "imagesTr" / f"{name}.nii.gz", folder / f"images{part}" / f"{name}_0000.nii.gz")
            label = sitk.ReadImage(source / "labelsTr" / f"{name}.nii.gz")
            if variant.ignore:
                label = _half_annotated(label)
            sitk.WriteImage(label, folder / f"labels{part}" / f"{name}.nii.gz")
    about = {"channel_names": {"0": "MRI"}, "numTraining": len(training), "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({**about, **variant.description()}))


def _half_annotated(label: sitk.Image) -> sitk.Image:
    """Every second slice, as annotators do to save time."""
    array = sitk.GetArrayFromImage(label)
    array[1::2] = IGNORE
    ignoring = sitk.GetImageFromArray(array.astype(np.uint8))
    ignoring.CopyInformation(label)
    return ignoring
