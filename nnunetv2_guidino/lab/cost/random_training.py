"""Trainings on random images: build a trainer from a plans file, make a batch for it, run its encoder alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.devices import usable_device
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.source import is_cached
from nnunetv2_guidino.model.guide.guided_network import GuidedNetwork
from nnunetv2_guidino.model.guide.slices import take_slices
from nnunetv2_guidino.nnunet.plans_file import PlansFile
from nnunetv2_guidino.tools.doctor.rehearsal import initialized_trainer, temporary_folders
from nnunetv2_guidino.tools.plan.encoder_cost import known_architecture


@dataclass(frozen=True)
class Training:
    """The arguments of nnUNetv2_train.

    Args:
        plans_file: The plans file; dataset.json lies beside it.
        configuration: The name of a configuration in the plans.
        trainer: "nnUNetTrainer" or the name of one of our trainers.
        device: "cpu", "cuda" or "mps".
    """

    plans_file: Path
    configuration: str
    trainer: str
    device: str = "cpu"


def build_trainer(training: Training) -> Any:
    """Return the initialized trainer; it writes only into folders that are gone when this function returns.

    An encoder that is not on this machine gets random weights if its architecture is known. Time and memory are the
    same.

    Raises:
        GuidinoError: If the plans cannot be trained, or the encoder's architecture is not known.
    """
    plans = checked_plans(training)
    with temporary_folders():
        return initialized_trainer(
            training.trainer,
            plans.plans,
            training.configuration,
            plans.dataset_json,
            usable_device(training.device),
            _architecture_without_weights,
        )


def checked_plans(training: Training, guided: bool = False) -> PlansFile:
    """Return the plans of a training; raise GuidinoError if it cannot start with them.

    Args:
        guided: Check the guide in the plans and its encoder, too.
    """
    plans = PlansFile.read(training.plans_file)
    plans.configuration(training.configuration)
    plans.dataset_json  # noqa: B018  reads and checks it
    if guided:
        _architecture_without_weights(plans.guide)
    return plans


def _architecture_without_weights(config: GuideConfig) -> dict[str, Any] | None:
    """Return the architecture of an encoder that is not on this machine, None for one that is."""
    if is_cached(config.encoder):
        return None
    architecture = known_architecture(config)
    if architecture is None:
        raise GuidinoError(
            f"encoder {config.encoder} is neither on this machine nor in `guidino encoder list`, so that its size is "
            "not known; say `guidino encoder fetch`, or name its folder in GUIDINO_ENCODER or in the plans"
        )
    return architecture


def dummy_batch(trainer: Any) -> dict[str, Any]:
    """Return random images of the planned size, and labels in stripes.

    nnU-Net's own benchmark without data loading draws each pixel's label. Then nearly every pixel would lie at an edge,
    and the boundary loss would cost several times its cost on masks. That benchmark runs on CUDA only.
    """
    size, patch = trainer.batch_size, trainer.configuration_manager.patch_size
    labels = trainer.label_manager

    def stripes(scale: list[float]) -> Tensor:
        shape = [round(side * by) for side, by in zip(patch, scale, strict=True)]
        target = torch.arange(shape[-1], device=trainer.device)
        target = target.mul(max(labels.all_labels) + 1).floor_divide(shape[-1])[None]
        if labels.has_regions:
            channels = torch.arange(len(labels.foreground_regions) + labels.has_ignore_label, device=trainer.device)
            target = target > channels[:, None]
        rows = target.float().reshape(len(target), *[1] * (len(shape) - 1), shape[-1])
        return rows.expand(size, len(target), *shape).contiguous()

    return {
        "data": torch.rand(size, trainer.num_input_channels, *patch, device=trainer.device),
        "target": [stripes(scale) for scale in trainer._get_deep_supervision_scales()],
    }


class BareEncoder:
    """The encoder of a guided network alone, without gradients, on the slices that it sees of a patch."""

    def __init__(self, trainer: Any):
        network: GuidedNetwork = trainer.bare_network()
        compiled = network is not trainer.network
        self.encode: Any = torch.compile(network.token_encoder) if compiled else network.token_encoder
        self.stride = network.slice_stride
        self.device = trainer.device

    def __call__(self, patch: Tensor, training: bool) -> None:
        """Encode a patch (B, n, H, W) or (B, n, D, H, W) in the number format of trainings or of predictions."""
        if patch.ndim == 5:
            patch = take_slices(patch, self.stride).transpose(1, 2).flatten(0, 1)
        before = self.encode.training
        self.encode.train(training)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            self.encode(patch.to(self.device))
        self.encode.train(before)
