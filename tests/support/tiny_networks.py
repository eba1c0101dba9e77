"""Each architecture so small that it is built and run in no time."""

from __future__ import annotations

import json
from typing import Any

import planned
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tiny_encoders import CONFIGS

from nnunetv2_guidino import lists
from nnunetv2_guidino.model.networks.networks_by_name import planned_architecture


def encoder_config(family: str = "dinov3", **changes: Any) -> dict[str, Any]:
    """Of a tiny transformer with four blocks, as plans hold it."""
    return {**json.loads(CONFIGS[family].to_json_string(use_diff=False)), "num_hidden_layers": 4, **changes}


_ON_TOKENS = {"encoder_config": encoder_config(), "min_input_size": 64}
SETTINGS: dict[str, dict[str, Any]] = {
    "nnwnet": {"widths": [4, 6, 8, 10, 12]},
    "segdino": {**_ON_TOKENS, "widths": [4, 6, 8, 10], "width": 8},
    "segdino2": {**_ON_TOKENS, "width": 32},
    "seg_guidino": {**_ON_TOKENS, "width": 32},
    "seg_guidino_partner": {**_ON_TOKENS, "width": 32},
    "swin_unet": {"width": 8, "heads": [1, 2, 2, 4], "window": 3},
    "ukan": {"widths": [32, 40, 48]},
    "h2former": {"width": 8, "heads": [1, 2, 2, 4], "blocks": [1, 1, 1, 1]},
}
ON_TOKENS = [name for name, settings in SETTINGS.items() if "encoder_config" in settings]
DIMENSIONS = [(name, count) for name in SETTINGS for count in lists.ARCHITECTURES[name].load().dimensions]


def plans_of(name: str, patch_size: tuple[int, ...], channels: int = 3, **settings: Any) -> Any:
    """nnU-Net's configuration with the architecture in it."""
    plans = planned.plans({}, patch_size=patch_size, channels=channels).plans
    ((configuration, planned_settings),) = plans["configurations"].items()
    planned_settings["architecture"] = planned_architecture(
        name, planned_settings, **{**SETTINGS.get(name, {}), **settings}
    )
    # through a file, as nnU-Net does
    return planned.PlansManager(json.loads(json.dumps(plans))).get_configuration(configuration)


def build(configuration: Any, channels: int = 3, classes: int = 2, deep_supervision: bool = True) -> Any:
    """The network that nnU-Net builds from its plans."""
    torch.manual_seed(0)
    return nnUNetTrainer.build_network_architecture(None, configuration, channels, classes, deep_supervision)


def tiny_network(name: str, patch_size: tuple[int, ...], channels: int = 3, classes: int = 2, **settings: Any) -> Any:
    """With deep supervision, in training mode."""
    return build(plans_of(name, patch_size, channels, **settings), channels, classes)
