"""Read nnU-Net's folds, and split cases as nnU-Net does.

Read in nnU-Net 2.8.1: nnUNetTrainer.do_split, which writes splits_final.json where there is none, in place.
"""

from __future__ import annotations

from pathlib import Path

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json
from nnunetv2_guidino.nnunet.descriptions import errors_in

Fold = dict[str, list[str]]  # names of cases by part, "train" and "val"
NNUNET_FOLDS = 5


def read_folds(file: Path) -> list[Fold]:
    """Read splits_final.json.

    Raises:
        GuidinoError: If the file cannot be read, or one of its folds has no lists of cases.
    """
    folds = read_json(file, list)
    for number, fold in enumerate(folds):
        parts = [fold.get(part) for part in ("train", "val")] if isinstance(fold, dict) else [None]
        if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in parts):
            raise GuidinoError(f"{file}: fold {number} is not an object with train and val, two lists of cases")
    return folds


def preprocessed_cases(folder: Path, configuration: str) -> list[str]:
    """Return the sorted names of the cases that nnU-Net has preprocessed for a configuration.

    Raises:
        GuidinoError: If the folder has no such cases.
    """
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    with errors_in(folder, f"has no cases as nnU-Net preprocesses them; run nnUNetv2_preprocess for {configuration}"):
        return sorted(infer_dataset_class(str(folder)).get_identifiers(str(folder)))


def stock_folds(cases: list[str], file: Path) -> list[Fold]:
    """Return the folds that nnU-Net makes if there is no splits_final.json.

    Args:
        cases: Names of all cases.
        file: The missing splits_final.json, for the error message.

    Raises:
        GuidinoError: If there are too few cases.
    """
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    if len(cases) < NNUNET_FOLDS:
        raise GuidinoError(f"nnU-Net's own split needs {NNUNET_FOLDS} cases, there are {len(cases)}; write {file}")
    return generate_crossval_split(cases, n_splits=NNUNET_FOLDS)
