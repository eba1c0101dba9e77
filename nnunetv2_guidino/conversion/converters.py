"""The list of converters, and where their files lie.

A converter is one file in the top-level folder dataset_conversion, as in nnU-Net, which describes its data set in
`DATASET`, and one line here.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import nnunetv2_guidino
from nnunetv2_guidino.errors import GuidinoError

if TYPE_CHECKING:
    from nnunetv2_guidino.conversion.dataset import Dataset

# name: the file without its .py, and what it converts
CONVERTERS = {
    "kvasir-seg": ("Dataset501_KvasirSEG", "Kvasir-SEG: polyps in colonoscopy images"),
    "isic2017": ("Dataset502_ISIC2017", "ISIC 2017: skin lesions in dermoscopy images"),
    "tn3k": ("Dataset503_TN3K", "TN3K: thyroid nodules in ultrasound images"),
    "folder": ("folder", "any pair of folders images/ and masks/"),
}


def converters_folder() -> Path:
    """The folder dataset_conversion: a wheel carries it inside the package, a clone has it beside the package."""
    package = Path(nnunetv2_guidino.__path__[0]).resolve()
    carried = package / "dataset_conversion"
    return carried if (carried / "folder.py").is_file() else package.parent / "dataset_conversion"


def load_converter(name: str) -> Dataset:
    """The data set that a converter of the list describes.

    Raises:
        GuidinoError: If there is no such converter.
    """
    dataset: Dataset = _load(name).DATASET
    return dataset


def converter_text(name: str) -> str:
    """What a converter's file says about its data set; raises GuidinoError if there is no such converter."""
    return _load(name).__doc__ or ""


@lru_cache
def _load(name: str) -> ModuleType:
    """A converter's file, loaded from where it lies: its folder is a package in no installation."""
    if name not in CONVERTERS:
        raise GuidinoError(f"there is no converter {name!r}; expected one of {', '.join(CONVERTERS)}")
    file = converters_folder() / f"{CONVERTERS[name][0]}.py"
    spec = importlib.util.spec_from_file_location(f"nnunetv2_guidino_converter_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
