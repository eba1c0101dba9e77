"""The list of converters and the place of their files.

A converter is one file in the top-level folder dataset_conversion, as in nnU-Net, and one line here. The file describes
its data set in `DATASET`.
"""

from __future__ import annotations

import runpy
from functools import cache
from typing import TYPE_CHECKING, Any

from nnunetv2_guidino import converters_folder
from nnunetv2_guidino.errors import GuidinoError

if TYPE_CHECKING:
    from nnunetv2_guidino.tools.conversion.dataset import Dataset  # imports numpy, and a list of names needs none

# name: the file without .py, and a summary
CONVERTERS = {
    "kvasir-seg": ("Dataset501_KvasirSEG", "Kvasir-SEG: polyps in colonoscopy images"),
    "isic2017": ("Dataset502_ISIC2017", "ISIC 2017: skin lesions in dermoscopy images"),
    "tn3k": ("Dataset503_TN3K", "TN3K: thyroid nodules in ultrasound images"),
    "folder": ("folder", "any pair of folders images/ and masks/"),
}


def load_converter(name: str) -> Dataset:
    """Return the data set that a converter describes; raises GuidinoError if there is no such converter."""
    dataset: Dataset = _run(name)["DATASET"]
    return dataset


def converter_text(name: str) -> str:
    """Return the docstring of a converter's file; raises GuidinoError if there is no such converter."""
    return _run(name)["__doc__"] or ""


@cache
def _run(name: str) -> dict[str, Any]:
    """Run a converter's file by its path: no installation has its folder as a package."""
    if name not in CONVERTERS:
        raise GuidinoError(f"there is no converter {name!r}; expected one of {', '.join(CONVERTERS)}")
    return runpy.run_path(str(converters_folder() / f"{CONVERTERS[name][0]}.py"), run_name=f"converter_{name}")
