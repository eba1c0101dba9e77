"""The folders that nnU-Net's variables name, and the data sets in them."""

from __future__ import annotations

import os
from pathlib import Path

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.printable import first_line

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def folder_of(variable: str) -> Path:
    """The folder that one of nnU-Net's variables names.

    Raises:
        GuidinoError: If it is not set, or set to nothing.
    """
    folder = os.environ.get(variable)
    if not folder:
        raise GuidinoError(f"{variable} is not set; export {variable}=FOLDER")
    return Path(folder)


def preprocessed_folder(dataset: str) -> Path:
    """A data set's folder in nnUNet_preprocessed, by name or number; raises GuidinoError if nnU-Net knows none."""
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    root = folder_of("nnUNet_preprocessed")
    if not root.is_dir():
        raise GuidinoError(f"nnUNet_preprocessed={root}: there is no such folder; `guidino doctor` says what to do")
    if Path(dataset).name != dataset:
        raise GuidinoError(f"-d {dataset}: expected a data set's name or number, not a path")
    try:
        return root / maybe_convert_to_dataset_name(dataset)
    except (RuntimeError, ValueError, OSError) as error:
        raise GuidinoError(f"-d {dataset}: {first_line(error)}") from error
