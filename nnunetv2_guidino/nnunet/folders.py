"""Find the folders that nnU-Net's variables name, and the data sets in them."""

from __future__ import annotations

import os
from pathlib import Path

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.printable import first_line

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def find_folder(variable: str) -> Path | None:
    """Return the absolute path that one of nnU-Net's variables names, None if it is not set or empty."""
    return Path(os.environ[variable]).absolute() if os.environ.get(variable) else None


def folder_of(variable: str, advice: str = "") -> Path:
    """Return the absolute path that one of nnU-Net's variables names.

    Args:
        variable: One of VARIABLES.
        advice: Advice of the error message in place of "export VARIABLE=FOLDER".

    Raises:
        GuidinoError: If the variable is not set or empty.
    """
    if folder := find_folder(variable):
        return folder
    raise GuidinoError(f"{variable} is not set; {advice or f'export {variable}=FOLDER'}")


def preprocessed_folder(dataset: str) -> Path:
    """Return a data set's folder in nnUNet_preprocessed; raise GuidinoError if nnU-Net knows no such name or number."""
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    root = folder_of("nnUNet_preprocessed")
    if not root.is_dir():
        raise GuidinoError(f"nnUNet_preprocessed={root}: there is no such folder; `guidino doctor` says what to do")
    if Path(dataset).name != dataset:
        raise GuidinoError(f"-d {dataset}: expected a data set's name or number, not a path")
    try:
        return root / maybe_convert_to_dataset_name(dataset)
    except (RuntimeError, ValueError, OSError) as error:
        folders = ", ".join(f"{variable}={folder}" for variable in VARIABLES if (folder := find_folder(variable)))
        if "Could not find a dataset" in str(error):  # nnU-Net's text goes on for several lines
            raise GuidinoError(f"-d {dataset}: there is no data set with this number in {folders}") from error
        if "More than one dataset" in str(error):
            raise GuidinoError(
                f"-d {dataset}: more than one data set in {folders} has this number; remove one"
            ) from error
        raise GuidinoError(f"-d {dataset}: {first_line(error)}") from error
