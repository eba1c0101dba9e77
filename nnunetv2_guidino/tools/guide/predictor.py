"""Predict the guide of a trained model by nnU-Net's own preprocessing, sliding window, mirroring and resampling."""

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

from nnunetv2_guidino.bounds import STEP_SIZE
from nnunetv2_guidino.devices import usable_device
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.guide.guided_network import GuidedNetwork
from nnunetv2_guidino.model.guide.resizing import interpolate
from nnunetv2_guidino.model.guide.tokenbook import foreground_guide
from nnunetv2_guidino.nnunet.descriptions import errors_in
from nnunetv2_guidino.nnunet.images import check_whole
from nnunetv2_guidino.nnunet.model_folder import read_model
from nnunetv2_guidino.printable import first_line

# nnU-Net takes a guide for a region whose logits are probabilities already; outside the crop it is 0.
GUIDE_REGION = LabelManager(
    {"background": 0, "guide": (1, 2)}, regions_class_order=(1,), inference_nonlin=nn.Identity()
)


class SegmentationAndGuides(nn.Module):
    """A guided network that returns its guides, resized to the patch, as further channels behind the logits.

    Args:
        network: The guided network.
        each_class: Return all G guides; else the guide that gates, and G is 1.

    Shape:
        (B, n, …) -> (B, classes + G, …)
    """

    def __init__(self, network: GuidedNetwork, each_class: bool = False):
        super().__init__()
        self.network = network
        self.each_class = each_class
        network.returns_guides = True

    def forward(self, patch: Tensor) -> Tensor:
        logits, guide_logits = self.network(patch)
        guides = guide_logits.sigmoid() if self.each_class else foreground_guide(guide_logits.sigmoid())
        return torch.cat([logits, interpolate(guides, logits.shape[2:]).to(logits.dtype)], dim=1)


class Guided(NamedTuple):
    """A prediction on the image's grid as nnU-Net's reader returns it; 2D images are volumes of one slice."""

    guides: npt.NDArray[np.float32]  # (G, D, H, W) in [0, 1]
    segmentation: npt.NDArray[Any]  # (D, H, W) of labels, as nnUNetv2_predict writes it
    properties: dict[str, Any]  # the reader's: spacing, origin and so on

    @property
    def guide(self) -> npt.NDArray[np.float32]:
        """The guide that gates, as (D, H, W)."""
        return self.guides.max(0)


class GuidePredictor:
    """Predicts guide and segmentation of one image after the other, averaged over folds.

    Args:
        model_folder: …/DatasetXXX/Trainer__Plans__configuration
        folds: The folds; the default is all numbered folds that have the checkpoint.
        checkpoint: The name of the checkpoint's file in each fold.
        device: "cpu", "cuda" or "mps".
        step_size, use_mirroring: The settings of nnU-Net's sliding window.
        each_class: Predict the guide of each class, if each class has one; else their maximum, which gates.

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
        each_class: bool = False,
    ):
        where = usable_device(device)
        STEP_SIZE.check("-step_size", step_size)
        model = read_model(model_folder, folds, checkpoint)
        network = model.network
        if not isinstance(network, GuidedNetwork):
            raise GuidinoError(f"{model_folder} was trained with {model.first['trainer_name']}, which has no guide")
        self.model_folder = model_folder
        self.dataset_json = model.plans.dataset_json
        self.plans_manager = model.plans.manager
        self.configuration_manager = model.configuration
        self.label_manager = model.plans.label_manager
        self.number = network.tokenbook.weight_logits.shape[0] if each_class else 1
        with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net tells everyone without a GPU about an option of GPUs
            predictor = nnUNetPredictor(
                tile_step_size=step_size, use_mirroring=use_mirroring, device=where, allow_tqdm=False
            )
        weights = (content["network_weights"] for content in model.checkpoints.values())
        predictor.manual_initialization(
            SegmentationAndGuides(network, each_class),
            self.plans_manager,
            self.configuration_manager,
            [{f"network.{name}": weight for name, weight in of_fold.items()} for of_fold in weights],
            self.dataset_json,
            model.first["trainer_name"],
            model.first.get("inference_allowed_mirroring_axes"),
        )
        # The sliding window asks the label manager for the number of channels only.
        heads = self.label_manager.num_segmentation_heads + self.number
        predictor.label_manager = SimpleNamespace(num_segmentation_heads=heads)
        self.predictor = predictor

    @property
    def reader(self) -> type:
        """nnU-Net's reader of this model's images."""
        return self.plans_manager.image_reader_writer_class

    @property
    def previous_stage(self) -> str | None:
        """The configuration whose predictions this model sees beside the images, if it is a cascade's later stage."""
        return self.configuration_manager.previous_stage_name

    def predict(self, image_files: Sequence[Path], previous: Path | None = None) -> Guided:
        """Predict guides and segmentation of one image from the files of its channels.

        Args:
            previous: The previous stage's prediction, if the model has such a stage.

        Raises:
            GuidinoError: For a file that cannot be read, or channels that do not fit together.
        """
        data, labels, properties = self._preprocessed(image_files, previous)
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
        with errors_in(self.model_folder / "plans.json", "does not say how a prediction gets the image's size back"):
            segmentation = to_image(logits[: -self.number], label_manager=self.label_manager)
            found = [
                to_image(guide[None], label_manager=GUIDE_REGION, return_probabilities=True)[1][0]
                for guide in logits[-self.number :]
            ]
        return Guided(np.clip(np.stack(found), 0, 1), segmentation, properties)

    def _preprocessed(self, image_files: Sequence[Path], previous: Path | None) -> tuple[Any, Any, dict[str, Any]]:
        """Return the output of nnU-Net's preprocessor: data (C, …), the previous stage's labels, properties."""
        image, properties = self.read_image(image_files)
        previous_labels = None
        files = f"{image_files[0]} with {previous}" if previous else image_files[0]
        try:
            if previous:
                check_whole(previous)
                previous_labels, _ = self.reader().read_seg(str(previous))
            preprocessor = self.configuration_manager.preprocessor_class(verbose=False)
            managers = (self.plans_manager, self.configuration_manager, self.dataset_json)
            return preprocessor.run_case_npy(image, previous_labels, properties, *managers)
        except GuidinoError:
            raise
        except Exception as error:  # each reader's library raises errors of its own
            raise GuidinoError(f"{files} cannot be preprocessed: {error or type(error).__name__}") from error

    def read_image(self, image_files: Sequence[Path]) -> tuple[Any, dict[str, Any]]:
        """Read the image (C, D, H, W) from the files of its channels, and its properties, by nnU-Net's reader.

        Raises:
            GuidinoError: For a file that cannot be read, or another number of channels than the model was trained on.
        """
        for file in image_files:
            check_whole(file)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net prints what it then raises without a word
                image, properties = self.reader().read_images(list(map(str, image_files)))
        except Exception as error:  # each reader's library raises errors of its own
            raise GuidinoError(_unreadable(image_files, error)) from error
        expected = len(self.configuration_manager.normalization_schemes)
        if len(image) != expected:
            transparency = "; remove its transparency (alpha)" if len(image) == 4 and expected == 3 else ""
            raise GuidinoError(
                f"{image_files[0]} has {len(image)} channels, the model was trained on {expected}{transparency}"
            )
        return image, properties


def _unreadable(image_files: Sequence[Path], error: Exception) -> str:
    if len(image_files) > 1 and not str(error):
        names = ", ".join(file.name for file in image_files)
        return f"{image_files[0].parent}: {names} cannot be preprocessed together: they differ in size or spacing"
    return f"{image_files[0]} cannot be preprocessed: {first_line(error)}"
