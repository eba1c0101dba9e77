"""Patches of a fold's preprocessed cases, as training would see them before augmentation."""

from __future__ import annotations

import json
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
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.plans import read_plans


@dataclass(frozen=True)
class Fold:
    """Where a fold's preprocessed cases lie and what is in them.

    Args:
        folder: With the preprocessed cases of one configuration.
        cases: Names by part, "train" and "val".
        patch_size: (height, width) in pixels; of a volume's slices, its last two.
        normalization_schemes: nnU-Net's, one per image channel.
        foreground_labels: Of the classes, or whatever is in a region.
        ignore_label: Of pixels that nobody annotated, if there is one.
    """

    folder: Path
    cases: dict[str, list[str]]
    patch_size: tuple[int, int]
    normalization_schemes: list[str]
    foreground_labels: list[int]
    ignore_label: int | None


def read_fold(dataset_folder: Path, plans_name: str, configuration: str, fold: int) -> Fold:
    """The fold that nnU-Net would train: of splits_final.json, or where that is missing, of nnU-Net's own split.

    Raises:
        GuidinoError: If there are no such plans, configuration, preprocessed cases or fold.
    """
    plans = read_plans(dataset_folder / f"{plans_name}.json")
    if configuration not in plans["configurations"]:
        known = ", ".join(plans["configurations"])
        raise GuidinoError(f"{plans_name} has no configuration {configuration}; there are {known}")
    manager = PlansManager(plans)
    settings = manager.get_configuration(configuration)
    folder = dataset_folder / settings.data_identifier
    if not folder.is_dir():
        raise GuidinoError(f"{folder} does not exist; run nnUNetv2_preprocess for {configuration} first")
    identifiers = sorted(infer_dataset_class(str(folder)).get_identifiers(str(folder)))
    splits_file = dataset_folder / "splits_final.json"
    splits = json.loads(splits_file.read_text()) if splits_file.is_file() else generate_crossval_split(identifiers)
    if fold >= len(splits):
        raise GuidinoError(f"-f {fold}: there are only the folds 0 to {len(splits) - 1}")
    missing = {*splits[fold]["train"], *splits[fold]["val"]} - {*identifiers}
    if missing:
        raise GuidinoError(f"{folder} lacks {len(missing)} cases of fold {fold}, {min(missing)} for one")
    labels = manager.get_label_manager(json.loads((dataset_folder / "dataset.json").read_text()))
    height, width = settings.patch_size[-2:]
    return Fold(
        folder=folder,
        cases={part: list(splits[fold][part]) for part in ("train", "val")},
        patch_size=(height, width),
        normalization_schemes=settings.normalization_schemes,
        foreground_labels=labels.foreground_labels,
        ignore_label=labels.ignore_label,
    )


def patches(fold: Fold, part: str, per_case: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """`per_case` patches of each case, each around one of its foreground pixels, the same in every call.

    Yields:
        image (n, h, w), float32, foreground (1, h, w), boolean, and valid (1, h, w), False where ignored
    """
    dataset = infer_dataset_class(str(fold.folder))(str(fold.folder), fold.cases[part])
    for case in fold.cases[part]:
        draw = random.Random(case)
        data, segmentation, *_ = dataset.load_case(case)
        labels = np.asarray(segmentation[0])
        inside = np.argwhere(np.isin(labels, fold.foreground_labels))
        for _ in range(per_case):
            center = inside[draw.randrange(len(inside))] if len(inside) else np.array(labels.shape) // 2
            box = _box_around(center, labels.shape, fold.patch_size, draw)
            image = crop_and_pad_nd(np.asarray(data[:, center[0]]), box)
            truth = crop_and_pad_nd(labels[None, center[0]], box)  # padded with background
            foreground, valid = np.isin(truth, fold.foreground_labels), truth != fold.ignore_label
            yield torch.from_numpy(image).float(), torch.from_numpy(foreground), torch.from_numpy(valid)


def _box_around(center: Any, shape: Sequence[int], patch_size: Sequence[int], draw: random.Random) -> list[list[int]]:
    """A box with the center at a random place in it, inside the image where the image is large enough."""
    box = []
    for position, side, size in zip(center[1:], shape[1:], patch_size, strict=True):
        start = min(max(int(position) - draw.randrange(size), 0), side - size)
        if side <= size:
            start = (side - size) // 2  # padded on both sides
        box.append([start, start + size])
    return box
