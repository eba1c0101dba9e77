"""The list of converters, and where their files lie.

A converter is one file in the top-level folder dataset_conversion, as in nnU-Net, which describes its data set in
`DATASET`, and one line here.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import nnunetv2_guidino

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


@lru_cache
def load_converter(name: str) -> tuple[Dataset, str]:
    """The data set that a converter of the list describes, and its file's docstring."""
    module_name, _ = CONVERTERS[name]
    file = converters_folder() / f"{module_name}.py"
    spec = importlib.util.spec_from_file_location(f"nnunetv2_guidino.dataset_conversion.{module_name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dataset: Dataset = module.DATASET
    return dataset, module.__doc__ or ""
