"""Cut patches from a fold's preprocessed cases, as training sees them before augmentation."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.crossval_split import generate_crossval_split
from torch import Tensor

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json
from nnunetv2_guidino.nnunet.descriptions import (
    configuration_of,
    errors_in,
    label_manager_of,
    read_configurations,
    read_dataset_json,
)

NNUNET_FOLDS = 5


@dataclass(frozen=True)
class Fold:
    """The preprocessed cases of one fold.

    Args:
        folder: The folder of one configuration's preprocessed cases.
        cases: The names of the cases of the parts "train" and "val".
        patch_size: (height, width) in pixels of a patch, or of a slice of it.
        normalization_schemes: nnU-Net's scheme for each image channel.
        foreground_labels: The labels of the classes, or of all regions together.
        ignore_label: The label of pixels that nobody annotated, if there is one.
    """

    folder: Path
    cases: dict[str, list[str]]
    patch_size: tuple[int, int]
    normalization_schemes: list[str]
    foreground_labels: list[int]
    ignore_label: int | None


def read_fold(dataset_folder: Path, plans_name: str, configuration: str, fold: int) -> Fold:
    """Read the fold that nnU-Net would train, from splits_final.json or else from nnU-Net's own split.

    Raises:
        GuidinoError: If there are no such plans, configuration, preprocessed cases or fold.
    """
    plans_file = dataset_folder / f"{plans_name}.json"
    plans = read_configurations(plans_file)
    manager, settings = configuration_of(plans, plans_file, configuration)
    folder = dataset_folder / settings.data_identifier
    if not folder.is_dir():
        raise GuidinoError(f"{folder} does not exist; run nnUNetv2_preprocess for {configuration} first")
    with errors_in(folder, f"has no cases as nnU-Net preprocesses them; run nnUNetv2_preprocess for {configuration}"):
        identifiers = sorted(infer_dataset_class(str(folder)).get_identifiers(str(folder)))
    splits = _splits(dataset_folder / "splits_final.json", identifiers)
    if not 0 <= fold < len(splits):
        raise GuidinoError(f"-f {fold}: there are only the folds 0 to {len(splits) - 1}")
    missing = {*splits[fold]["train"], *splits[fold]["val"]} - {*identifiers}
    if missing:
        raise GuidinoError(
            f"{folder} lacks {len(missing)} cases of fold {fold}, {min(missing)} for one, by its splits_final.json"
        )
    dataset_file = dataset_folder / "dataset.json"
    labels = label_manager_of(manager, read_dataset_json(dataset_file, "labels"), dataset_file)
    height, width = settings.patch_size[-2:]
    return Fold(
        folder=folder,
        cases={part: list(splits[fold][part]) for part in ("train", "val")},
        patch_size=(height, width),
        normalization_schemes=settings.normalization_schemes,
        foreground_labels=labels.foreground_labels,
        ignore_label=labels.ignore_label,
    )


def _splits(file: Path, identifiers: list[str]) -> list[Any]:
    """Read splits_final.json, or return nnU-Net's own split if there is no such file."""
    if not file.is_file():
        if len(identifiers) < NNUNET_FOLDS:
            raise GuidinoError(
                f"nnU-Net's own split needs {NNUNET_FOLDS} cases, there are {len(identifiers)}; write {file}"
            )
        return list(generate_crossval_split(identifiers))
    splits = read_json(file, list)
    for number, split in enumerate(splits):
        lists = [split.get(part) for part in ("train", "val")] if isinstance(split, dict) else [None]
        if not all(isinstance(names, list) and names and all(isinstance(n, str) for n in names) for names in lists):
            raise GuidinoError(f"{file}: fold {number} is not an object with train and val, two lists of cases")
    return splits


def patches(fold: Fold, part: str, per_case: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield `per_case` patches of each case around random foreground pixels; every call yields the same patches.

    Yields:
        image (n, h, w), float32, foreground (1, h, w), boolean, and valid (1, h, w), False where ignored
    """
    dataset = infer_dataset_class(str(fold.folder))(str(fold.folder), fold.cases[part])
    for case in fold.cases[part]:
        draw = random.Random(case)
        images, labels = _load(fold, dataset, case)
        inside = np.argwhere(np.isin(labels, fold.foreground_labels))
        for _ in range(per_case):
            center = inside[draw.randrange(len(inside))] if len(inside) else np.array(labels.shape) // 2
            box = _box_around(center, labels.shape, fold.patch_size, draw)
            image = crop_and_pad_nd(images[:, center[0]], box)
            truth = crop_and_pad_nd(labels[None, center[0]], box)  # padded with background
            foreground, valid = np.isin(truth, fold.foreground_labels), truth != fold.ignore_label
            yield torch.from_numpy(image).float(), torch.from_numpy(foreground), torch.from_numpy(valid)


def _load(fold: Fold, dataset: Any, case: str) -> tuple[Any, Any]:
    """Return a case's image (n, z, y, x) and labels (z, y, x); raise GuidinoError for a damaged or foreign case."""
    file = fold.folder / case
    with errors_in(file, "is no case as nnU-Net preprocesses it; run nnUNetv2_preprocess again"):
        for ending in (".b2nd", "_seg.b2nd", ".npz", ".npy", "_seg.npy", ".pkl"):
            if (path := file.with_name(f"{case}{ending}")).exists() and not path.is_file():
                raise ValueError(f"{path.name} is no regular file")
        data, segmentation, *_ = dataset.load_case(case)
        images, labels = np.asarray(data[:]), np.asarray(segmentation[0])
        channels = len(fold.normalization_schemes)
        if images.ndim != 4 or images.shape != (channels, *labels.shape):
            raise ValueError(f"its shapes {images.shape} and {labels.shape} are not those of {channels} channels")
    return images, labels


def _box_around(center: Any, shape: Sequence[int], patch_size: Sequence[int], draw: random.Random) -> list[list[int]]:
    """Return a box around the center, which has a random place in it; a large enough image holds the whole box."""
    box = []
    for position, side, size in zip(center[1:], shape[1:], patch_size, strict=True):
        start = min(max(int(position) - draw.randrange(size), 0), side - size)
        if side <= size:
            start = (side - size) // 2  # padded on both sides
        box.append([start, start + size])
    return box
