"""Guided networks on small plans, as the trainer builds them, and parts to put in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from planned import CHANNELS, CLASSES
from torch import nn

from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.guide.gates import Gate
from nnunetv2_guidino.training.guided import nnUNetTrainerGuiDINO


def guide_section(folder: Path, **settings: Any) -> dict[str, Any]:
    """The section "guidino" with what a training fills in."""
    return {
        "classes": CLASSES - 1,
        "encoder_config": read_encoder_config(folder, settings.get("layer")),
        "min_input_size": 64,
        "prototypes": 8,
        **settings,
    }


def build(
    manager: PlansManager, deep_supervision: bool = True, trainer: Any = nnUNetTrainerGuiDINO, channels: int = CHANNELS
) -> Any:
    """The network as nnU-Net asks the trainer for it; without deep supervision, to predict."""
    configuration = manager.get_configuration(*manager.available_configurations)
    torch.manual_seed(0)
    return trainer.build_network_architecture(manager, configuration, channels, CLASSES, deep_supervision)


class ConstantGuide(nn.Module):
    """In place of a TokenBook: one guide, the same everywhere."""

    def __init__(self, value: float):
        super().__init__()
        self.logit = torch.tensor(value, dtype=torch.float64).logit(eps=1e-9).float()  # finite, as a TokenBook's

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(tokens[:, :1]) + self.logit


class PerChannel(Gate):
    """A gate with parameters of its own."""

    needs_channels = True

    def __init__(self, channels: int):
        super().__init__(channels)
        self.strength = nn.Parameter(torch.zeros(channels))

    def factor(self, guide: torch.Tensor) -> torch.Tensor:
        return 1 + guide * self.strength.reshape(-1, *[1] * (guide.ndim - 2))


class Alone(nn.Module):
    """A network without encoder and decoder; nnU-Net's switch of deep supervision means nothing to it."""

    def __init__(self, input_channels: int, num_classes: int, deep_supervision: bool = False, strides: Any = None):
        super().__init__()
        self.convolution = nn.Conv2d(input_channels, num_classes, 1)

    def forward(self, patch: torch.Tensor) -> torch.Tensor:
        return self.convolution(patch)
