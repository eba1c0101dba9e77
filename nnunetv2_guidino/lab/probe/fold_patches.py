"""Draw patches of a fold's preprocessed cases, as training would see them before augmentation."""

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
from torch import Tensor

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.descriptions import errors_in, read_dataset_json
from nnunetv2_guidino.nnunet.folds import preprocessed_cases, read_folds, stock_folds
from nnunetv2_guidino.nnunet.plans_file import PlansFile


@dataclass(frozen=True)
class Fold:
    """The preprocessed cases of a fold.

    Args:
        folder: Folder with the preprocessed cases of one configuration.
        cases: Names of the cases by part, "train" and "val".
        patch_size: (height, width) in pixels; the last two sides of a volume's patch.
        normalization_schemes: nnU-Net's normalization of each image channel.
        foreground_labels: Labels of all classes and regions.
        ignore_label: Label of pixels that are not annotated, if there is one.
    """

    folder: Path
    cases: dict[str, list[str]]
    patch_size: tuple[int, int]
    normalization_schemes: list[str]
    foreground_labels: list[int]
    ignore_label: int | None


def read_fold(dataset_folder: Path, plans_name: str, configuration: str, fold: int) -> Fold:
    """Return the fold that nnU-Net would train, from splits_final.json or else from nnU-Net's own split.

    Raises:
        GuidinoError: If there are no such plans, configuration, preprocessed cases or fold.
    """
    plans = PlansFile.read(dataset_folder / f"{plans_name}.json")
    plans.dataset_json = read_dataset_json(dataset_folder / "dataset.json", "labels")  # channels are not asked for
    settings = plans.configuration(configuration)
    folder = dataset_folder / settings.data_identifier
    if not folder.is_dir():
        raise GuidinoError(f"{folder} does not exist; run nnUNetv2_preprocess for {configuration} first")
    cases, file = preprocessed_cases(folder, configuration), dataset_folder / "splits_final.json"
    folds = read_folds(file) if file.is_file() else stock_folds(cases, file)
    if not 0 <= fold < len(folds):
        raise GuidinoError(f"-f {fold}: there are only the folds 0 to {len(folds) - 1}")
    for part in ("train", "val"):
        if not folds[fold][part]:
            raise GuidinoError(f"{file}: fold {fold} has no case in {part}")
    missing = {*folds[fold]["train"], *folds[fold]["val"]} - {*cases}
    if missing:
        raise GuidinoError(
            f"{folder} lacks {len(missing)} cases of fold {fold}, {min(missing)} for one, by its splits_final.json"
        )
    height, width = settings.patch_size[-2:]
    return Fold(
        folder=folder,
        cases=folds[fold],
        patch_size=(height, width),
        normalization_schemes=settings.normalization_schemes,
        foreground_labels=plans.label_manager.foreground_labels,
        ignore_label=plans.label_manager.ignore_label,
    )


def patches(fold: Fold, part: str, per_case: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield `per_case` patches of each case, each around one of its foreground pixels, the same in every call.

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
    """Return a box with the center at a random place in it, inside the image if the image is large enough."""
    box = []
    for position, side, size in zip(center[1:], shape[1:], patch_size, strict=True):
        start = min(max(int(position) - draw.randrange(size), 0), side - size)
        if side <= size:
            start = (side - size) // 2  # padded on both sides
        box.append([start, start + size])
    return box
