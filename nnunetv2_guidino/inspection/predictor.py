"""The guide of a trained model through nnU-Net's own preprocessing, sliding window, mirroring and resampling."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import LabelManager, convert_labelmap_to_one_hot
from torch import Tensor, nn

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.guide.network import GuidedNetwork
from nnunetv2_guidino.guide.resizing import interpolate
from nnunetv2_guidino.guide.tokenbook import gating_guide

# To nnU-Net the guide is one more region whose logits are probabilities already; outside the crop it is 0.
GUIDE_REGION = LabelManager(
    {"background": 0, "guide": (1, 2)}, regions_class_order=(1,), inference_nonlin=nn.Identity()
)


class SegmentationAndGuide(nn.Module):
    """The guide as one more channel behind a guided network's logits, resized to the patch.

    Shape:
        (B, n, …) -> (B, classes + 1, …)
    """

    def __init__(self, network: GuidedNetwork):
        super().__init__()
        self.network = network
        network.returns_guides = True

    def forward(self, patch: Tensor) -> Tensor:
        logits, *_, guides = self.network(patch)
        guide = interpolate(gating_guide(guides), logits.shape[2:])
        return torch.cat([logits, guide.to(logits.dtype)], dim=1)


class Guided(NamedTuple):
    """On the grid of the image as nnU-Net's reader returns it; 2D images are volumes of one slice."""

    guide: npt.NDArray[np.float32]  # (D, H, W) in [0, 1]
    segmentation: npt.NDArray[Any]  # (D, H, W) of labels, as nnUNetv2_predict writes it
    properties: dict[str, Any]  # the reader's: spacing, origin and so on


class GuidePredictor:
    """Predicts guide and segmentation of one image after the other; several folds are averaged.

    Args:
        model_folder: …/DatasetXXX/Trainer__Plans__configuration
        folds: Default: all numbered ones that have the checkpoint.
        checkpoint: Name of the file in each fold.
        device: "cpu", "cuda" or "mps".
        step_size, use_mirroring: nnU-Net's, of the sliding window.

    Raises:
        GuidinoError: If there is no such model, or it has no guide.
    """

    def __init__(
        self,
        model_folder: Path,
        folds: Sequence[str] | None,
        checkpoint: str,
        device: str,
        step_size: float = 0.5,
        use_mirroring: bool = True,
    ):
        folds = _checked_folds(model_folder, folds, checkpoint)
        with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net tells everyone without a GPU about an option of GPUs
            predictor = nnUNetPredictor(
                tile_step_size=step_size, use_mirroring=use_mirroring, device=torch.device(device), allow_tqdm=False
            )
        predictor.initialize_from_trained_model_folder(str(model_folder), folds, checkpoint)
        network = getattr(predictor.network, "_orig_mod", predictor.network)  # inside torch.compile's wrapper
        if not isinstance(network, GuidedNetwork):
            raise GuidinoError(f"{model_folder} was trained with {predictor.trainer_name}, which has no guide")
        self.dataset_json = predictor.dataset_json
        self.plans_manager = predictor.plans_manager
        self.configuration_manager = predictor.configuration_manager
        self.label_manager = predictor.label_manager
        predictor.network = SegmentationAndGuide(network)
        predictor.list_of_parameters = [
            {f"network.{name}": weight for name, weight in weights.items()} for weights in predictor.list_of_parameters
        ]
        # All that the sliding window asks of it is how many channels there are.
        predictor.label_manager = SimpleNamespace(num_segmentation_heads=self.label_manager.num_segmentation_heads + 1)
        self.predictor = predictor

    @property
    def reader(self) -> type:
        """nnU-Net's, for this model's images."""
        return self.plans_manager.image_reader_writer_class

    @property
    def previous_stage(self) -> str | None:
        """Of a cascade: the configuration whose predictions this model sees beside the images."""
        return self.configuration_manager.previous_stage_name

    def predict(self, image_files: Sequence[Path], previous: Path | None = None) -> Guided:
        """Guide and segmentation of one image, given the files of its channels.

        Args:
            previous: The previous stage's prediction, if the model has such a stage.

        Raises:
            GuidinoError: For a file that cannot be read, or channels that do not fit together.
        """
        preprocessor = self.configuration_manager.preprocessor_class(verbose=False)
        try:
            data, labels, properties = preprocessor.run_case(
                list(map(str, image_files)),
                str(previous) if previous else None,
                self.plans_manager,
                self.configuration_manager,
                self.dataset_json,
            )
        except Exception as error:  # each reader's library has its own
            files = f"{image_files[0]} with {previous}" if previous else image_files[0]
            raise GuidinoError(f"{files} cannot be preprocessed: {error or type(error).__name__}") from error
        expected = len(self.configuration_manager.normalization_schemes)
        if len(data) != expected:
            raise GuidinoError(f"{image_files[0]} has {len(data)} channels, the model was trained on {expected}")
        if previous:
            one_hot = convert_labelmap_to_one_hot(labels[0], self.label_manager.foreground_labels, data.dtype)
            data = np.concatenate([data, one_hot])
        logits = self.predictor.predict_logits_from_preprocessed_data(torch.as_tensor(data))
        to_image = partial(
            convert_predicted_logits_to_segmentation_with_correct_shape,
            plans_manager=self.plans_manager,
            configuration_manager=self.configuration_manager,
            properties_dict=properties,
        )
        segmentation = to_image(logits[:-1], label_manager=self.label_manager)
        _, guide = to_image(logits[-1:], label_manager=GUIDE_REGION, return_probabilities=True)
        return Guided(np.clip(guide[0], 0, 1), segmentation, properties)


def _checked_folds(model_folder: Path, folds: Sequence[str] | None, checkpoint: str) -> tuple[str, ...]:
    for name in ("plans.json", "dataset.json"):
        if not (model_folder / name).is_file():
            raise GuidinoError(f"{model_folder} has no {name}; expected …/DatasetXXX/Trainer__Plans__configuration")
    found = sorted(file.parent.name.removeprefix("fold_") for file in model_folder.glob(f"fold_*/{checkpoint}"))
    wanted = list(folds or [fold for fold in found if fold.isdigit()])
    if missing := [fold for fold in wanted if fold not in found]:
        raise GuidinoError(
            f"{model_folder}/fold_{missing[0]} has no {checkpoint}; folds that have it: {found or 'none'}"
        )
    if not wanted:
        raise GuidinoError(
            f"no numbered fold in {model_folder} has {checkpoint} (with it: {found or 'none'}): finish training, "
            "choose another with -chk, or say -f all"
        )
    return tuple(wanted)
