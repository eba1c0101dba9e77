"""Build AdamW with a separate learning rate for LoRA's adapters, and remove frozen parameters from nnU-Net's SGD."""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn

from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder

PAPER_LEARNING_RATE = 1e-4  # section 4.2, for AdamW


def has_adapters(network: nn.Module) -> bool:
    """Return True if LoRA adapts a transformer in the network: that of the guide or of the segmentation network."""
    return any(isinstance(module, TokenEncoder) and module.has_adapters for module in network.modules())


def adamw(network: nn.Module, learning_rate: float, weight_decay: float, epochs: int) -> tuple[Any, Any]:
    """Return one AdamW optimizer with a parameter group for the adapters of each transformer, and nnU-Net's schedule.

    All groups are in one optimizer, because nnU-Net steps only one.

    Args:
        network: Network with the parameters to train; frozen parameters are left out.
        learning_rate: Rate of all parameters except the adapters, which have the rate of their LoRA (section 4.2).
        weight_decay: Weight decay of all parameters.
        epochs: Number of epochs after which each rate is zero.
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
    """Remove frozen parameters, in place: nnU-Net hands all parameters to its optimizer."""
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]


class GroupPolyLRScheduler(PolyLRScheduler):
    """Scale the initial learning rate of each group by (1 - epoch / max_steps)^0.9.

    nnU-Net's scheduler writes one rate into all groups. Started at the rate 1, it writes this factor.

    Args:
        optimizer: Optimizer with one learning rate for each group.
        max_steps: Number of epochs after which each rate is zero.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_steps: int):
        super().__init__(optimizer, 1.0, max_steps)

    def step(self, current_step: int | None = None) -> None:
        super().step(current_step)
        for group in self.optimizer.param_groups:
            group["lr"] *= group["initial_lr"]  # torch's base class stores this rate, and checkpoints keep it
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
