"""Score the guide of one trained fold by itself, without the decoder, on the fold's validation cases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.evaluation.cases import PredictedCase, pair_folds
from nnunetv2_guidino.tools.evaluation.reading import PairReader
from nnunetv2_guidino.tools.evaluation.scored_labels import LabelSet, as_tuple, label_set
from nnunetv2_guidino.tools.guide.guide_scores import Histogram, dice_of_masks, histogram
from nnunetv2_guidino.tools.guide.predictor import GuidePredictor

Array = npt.NDArray[Any]

CHECKPOINT = "checkpoint_final.pth"
ANY_CLASS = "any foreground"
SHOWN = 256  # pixels along a side of a guide that is kept as a picture; a guide is smooth


class GuideOfClass(NamedTuple):
    """The guide for one class, or for any foreground, in one case."""

    name: str
    values: Histogram
    segmentation_dice: float  # Dice of the validation's segmentation for the same class


class GuideOfCase(NamedTuple):
    """The guide in one case."""

    case: str
    classes: list[GuideOfClass]
    picture: npt.NDArray[np.uint8]  # (D, h, w): the guide that gates, 0…255, every n-th pixel of the last two axes


def guides_alone(model_folder: Path, fold: str, device: str, raw: Path) -> Iterator[GuideOfCase]:
    """Yield for each validation case the guides of `guidino guide`, and their agreement with the reference.

    If each class has a guide, each guide is compared with its class. One guide for several classes is compared with
    their union.

    Args:
        model_folder: …/DatasetXXX/Trainer__Plans__configuration
        device: "cpu", "cuda" or "mps".
        raw: The data set's folder in nnUNet_raw.

    Raises:
        GuidinoError: For a model without a guide, a cascade's later stage, and missing or damaged files.
    """
    predictor = GuidePredictor(model_folder, [fold], CHECKPOINT, device, each_class=True)
    if predictor.previous_stage:
        raise GuidinoError(f"{model_folder} is a cascade's later stage; its guide is not scored")
    dataset_json = predictor.dataset_json
    labels = label_set(dataset_json["labels"], f"{model_folder}/dataset.json")
    cases = pair_folds(model_folder, [fold], None, predictor.plans_manager.dataset_name, dataset_json["file_ending"])
    images, pairs = training_images(raw), PairReader(predictor.reader, labels)
    classes = _classes(predictor, labels)
    for case in cases:
        if case.name not in images:
            raise GuidinoError(f"{raw} has no image of {case.name}")
        guides = predictor.predict(images[case.name]).guides
        yield GuideOfCase(case.name, _scored(guides, classes, case, pairs), _small(guides.max(0)))


def training_images(raw: Path) -> dict[str, list[Path]]:
    """Return the files of each training case's channels by the case's name, as nnU-Net finds them."""
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    if not (raw / "dataset.json").is_file():
        raise GuidinoError(f"{raw} has no dataset.json: the raw images, from which guides are made, are not there")
    found = get_filenames_of_train_images_and_targets(str(raw))
    return {name: [Path(file) for file in files["images"]] for name, files in found.items()}


def _classes(predictor: GuidePredictor, labels: LabelSet) -> dict[str, tuple[int, ...]]:
    """Return the name and the label values of each guide's class, in the order of the guides."""
    if predictor.number == 1:
        values = tuple(value for value in labels.values if value != 0)
        return {next(iter(labels.classes)) if len(labels.classes) == 1 else ANY_CLASS: values}
    manager = predictor.label_manager
    targets = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    wanted = [tuple(np.atleast_1d(target).tolist()) for target in targets]
    names = {frozenset(as_tuple(values)): name for name, values in labels.classes.items()}
    return {names[frozenset(values)]: values for values in wanted}


def _scored(
    guides: Array, classes: dict[str, tuple[int, ...]], case: PredictedCase, pairs: PairReader
) -> list[GuideOfClass]:
    reference, prediction, _ = pairs.read(case)
    if reference.ndim == 2:
        reference, prediction = reference[None], prediction[None]
    if reference.shape != guides.shape[1:]:
        raise GuidinoError(f"{case.reference} has size {reference.shape}, its image has {guides.shape[1:]}")
    valid = np.ones_like(reference, bool) if pairs.labels.ignore is None else reference != pairs.labels.ignore
    found = []
    for guide, (name, values) in zip(guides, classes.items(), strict=True):
        truth, mask = (np.isin(array, values) & valid for array in (reference, prediction))
        found.append(GuideOfClass(name, histogram(guide, truth, valid), dice_of_masks(mask, truth)))
    return found


def _small(guide: Array) -> npt.NDArray[np.uint8]:
    step = -(-max(guide.shape[1:]) // SHOWN)
    return (255 * guide[:, ::step, ::step]).round().astype(np.uint8)
