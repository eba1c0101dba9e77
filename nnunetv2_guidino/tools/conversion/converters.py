"""Load the converters that lists.CONVERTERS names.

A converter is one file in the top-level folder dataset_conversion, as in nnU-Net. The file describes its data set in
`DATASET`.
"""

from __future__ import annotations

import runpy
from functools import cache
from typing import Any

from nnunetv2_guidino import converters_folder
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lists import CONVERTERS
from nnunetv2_guidino.tools.conversion.dataset import Dataset


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
