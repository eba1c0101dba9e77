"""What steps the weights: AdamW with a rate of its own for LoRA's adapters, or nnU-Net's SGD of what is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nnunetv2_guidino.encoders.token_encoder import TokenEncoder
from nnunetv2_guidino.training.lr_scheduler import GroupPolyLRScheduler

PAPER_LEARNING_RATE = 1e-4  # section 4.2, for AdamW


def has_adapters(network: nn.Module) -> bool:
    """Whether LoRA adapts a transformer in it: the guide's, or one that the segmentation network stands on."""
    return any(isinstance(module, TokenEncoder) and module.has_adapters for module in network.modules())


def adamw(network: nn.Module, learning_rate: float, weight_decay: float, epochs: int) -> tuple[Any, Any]:
    """One optimizer, since nnU-Net steps one, with a group for each transformer's adapters; and nnU-Net's schedule.

    Args:
        network: Of which all that is trained is stepped.
        learning_rate: Of all but the adapters, which have that of their LoRA.
        weight_decay: Of all.
        epochs: Over which each rate falls to zero.
    """
    groups: list[dict[str, Any]] = []
    for module in network.modules():
        if isinstance(module, TokenEncoder) and module.lora is not None and module.has_adapters:
            adapters = [parameter for name, parameter in module.named_parameters() if "lora_" in name]
            groups.append({"params": adapters, "lr": module.lora.learning_rate})
    grouped = {id(parameter) for group in groups for parameter in group["params"]}
    rest = [parameter for parameter in network.parameters() if parameter.requires_grad and id(parameter) not in grouped]
    optimizer = torch.optim.AdamW([{"params": rest, "lr": learning_rate}, *groups], weight_decay=weight_decay)
    return optimizer, GroupPolyLRScheduler(optimizer, epochs)


def without_frozen(optimizer: torch.optim.Optimizer) -> None:
    """Take out what is frozen: nnU-Net hands all parameters to its optimizer."""
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
