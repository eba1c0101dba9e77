"""Apply nnU-Net's polynomial schedule to parameter groups with separate learning rates."""

from __future__ import annotations

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler


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
