"""Networks as nnU-Net trains them and predicts with them, on random images: no data are read, and nothing is left."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import Tensor

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.devices import usable_device
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.source import is_cached
from nnunetv2_guidino.model.guide.guided_network import GuidedNetwork
from nnunetv2_guidino.model.guide.slices import take_slices
from nnunetv2_guidino.nnunet.folders import VARIABLES
from nnunetv2_guidino.nnunet.plans_file import PlansFile
from nnunetv2_guidino.tools.doctor.trainer_import import imported_trainer
from nnunetv2_guidino.tools.plan.encoder_cost import known_architecture
from nnunetv2_guidino.training.seeding import environment_variable

FOLDS = 5


@dataclass(frozen=True)
class Training:
    """What nnUNetv2_train is told.

    Args:
        plans_file: Beside it lies dataset.json.
        configuration: One in it.
        trainer: "nnUNetTrainer" or the name of one of ours.
        device: "cpu", "cuda" or "mps".
    """

    plans_file: Path
    configuration: str
    trainer: str
    device: str = "cpu"


def build_trainer(training: Training) -> Any:
    """nnU-Net's trainer, initialized, with all that it writes in folders that are gone when this returns.

    An encoder that is not on this machine gets random weights, if its architecture is known: time and memory are the
    same.

    Raises:
        GuidinoError: If the plans cannot be trained, or nothing is known of the encoder.
    """
    plans = PlansFile.read(training.plans_file)
    settings = plans.configuration(training.configuration)
    device = usable_device(training.device)
    with temporary_folders() as folders, redirect_stdout(StringIO()):
        data = folders / "nnUNet_preprocessed" / plans.manager.dataset_name / settings.data_identifier
        data.mkdir(parents=True)
        (data / "case.b2nd").touch()  # nnU-Net tells the format of the others by it
        trainer: Any = imported_trainer(training.trainer)(
            {**plans.plans, "continue_training": False}, training.configuration, 0, plans.dataset_json, device
        )
        if hasattr(trainer, "guide_config") and not is_cached(trainer.guide_config.encoder):
            trainer.resumed_guide = _guide_without_weights(trainer.guide_config, trainer.label_manager)
        trainer.initialize()
    trainer.network.train()
    return trainer


@contextmanager
def temporary_folders() -> Iterator[Path]:
    """nnU-Net's three variables name folders in this one meanwhile."""
    with tempfile.TemporaryDirectory() as root, ExitStack() as stack:
        for variable in VARIABLES:
            stack.enter_context(environment_variable(variable, f"{root}/{variable}"))
        yield Path(root)


def _guide_without_weights(config: GuideConfig, labels: Any) -> GuideConfig:
    architecture = known_architecture(config)
    if architecture is None:
        raise GuidinoError(
            f"encoder {config.encoder} is neither on this machine nor in `guidino encoder list`, so that its size is "
            "not known; say `guidino encoder fetch`, or name its folder in GUIDINO_ENCODER or in the plans"
        )
    classes = labels.foreground_regions if labels.has_regions else labels.foreground_labels
    return replace(config, encoder_config=architecture, classes=len(classes))


def dummy_batch(trainer: Any) -> dict[str, Any]:
    """Return random images of the planned size, and labels in stripes.

    nnU-Net's own benchmark without data loading draws each pixel's label. Then nearly every pixel would lie at an edge,
    and the boundary loss would cost several times what it costs on masks.
    """
    size, patch = trainer.batch_size, trainer.configuration_manager.patch_size
    labels = trainer.label_manager
    shapes = [
        [round(side * by) for side, by in zip(patch, scale, strict=True)]
        for scale in trainer._get_deep_supervision_scales()
    ]

    def stripes(shape: list[int]) -> Tensor:
        values = max(labels.all_labels) + 1
        target = torch.arange(shape[-1], device=trainer.device).mul(values).floor_divide(shape[-1])
        if labels.has_regions:
            channels = torch.arange(len(labels.foreground_regions) + labels.has_ignore_label, device=trainer.device)
            target = (target > channels[:, None]).reshape(-1, *[1] * (len(shape) - 1), shape[-1])
        return target.float().expand(size, len(target) if labels.has_regions else 1, *shape).contiguous()

    return {
        "data": torch.rand(size, trainer.num_input_channels, *patch, device=trainer.device),
        "target": [stripes(shape) for shape in shapes],
    }


class Prediction:
    """What nnUNetv2_predict does with preprocessed images of one patch each, a random one at each call.

    Args:
        trainer: Whose network and weights are used; in each fold they are others, but for a frozen encoder's.
    """

    def __init__(self, trainer: Any):
        with redirect_stdout(StringIO()):  # nnU-Net tells everyone without a GPU about an option of GPUs
            self.predictor = nnUNetPredictor(device=trainer.device, allow_tqdm=False)
            *_, mirroring_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        network = trainer.build_network_architecture(
            trainer.plans_manager,
            trainer.configuration_manager,
            trainer.num_input_channels,
            trainer.label_manager.num_segmentation_heads,
            enable_deep_supervision=False,
        )
        trained = trainer.bare_network().state_dict()
        folds = [{name: _of_fold(name, tensor, fold) for name, tensor in trained.items()} for fold in range(FOLDS)]
        network.load_state_dict(folds[0])
        self.predictor.manual_initialization(
            network,
            trainer.plans_manager,
            trainer.configuration_manager,
            folds,
            trainer.dataset_json,
            type(trainer).__name__,
            mirroring_axes,
        )
        patch = trainer.configuration_manager.patch_size
        self.mirrored = 2 ** len(mirroring_axes)
        self.shape = (trainer.num_input_channels, *([1] if len(patch) == 2 else []), *patch)

    def tile(self) -> None:
        """One pass of the network."""
        self.predictor.use_mirroring = False
        self.predictor.predict_sliding_window_return_logits(torch.rand(self.shape))

    def image(self) -> None:
        """With mirroring."""
        self.predictor.use_mirroring = True
        self.predictor.predict_sliding_window_return_logits(torch.rand(self.shape))

    def folds(self) -> None:
        """By five folds, without mirroring."""
        self.predictor.use_mirroring = False
        self.predictor.predict_logits_from_preprocessed_data(torch.rand(self.shape))


def _of_fold(name: str, tensor: Tensor, fold: int) -> Tensor:
    frozen = name.startswith("token_encoder.vit.") and "lora_" not in name
    if frozen or not tensor.is_floating_point():
        return tensor.to("cpu", copy=True)
    return tensor.cpu() + fold / 100  # LoRA's B is zero before training: a factor would leave folds the same


class BareEncoder:
    """The encoder of a guided network alone, without gradients, on what it sees of a patch."""

    def __init__(self, trainer: Any):
        network: GuidedNetwork = trainer.bare_network()
        compiled = network is not trainer.network
        self.encode: Any = torch.compile(network.token_encoder) if compiled else network.token_encoder
        self.stride = network.slice_stride
        self.device = trainer.device

    def __call__(self, patch: Tensor, training: bool) -> None:
        """(B, n, H, W) or (B, n, D, H, W), in the format of trainings or of predictions."""
        if patch.ndim == 5:
            patch = take_slices(patch, self.stride).transpose(1, 2).flatten(0, 1)
        before = self.encode.training
        self.encode.train(training)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            self.encode(patch.to(self.device))
        self.encode.train(before)
