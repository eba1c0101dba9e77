"""nnU-Net's polynomial schedule for parameter groups with rates of their own."""

from __future__ import annotations

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler


class GroupPolyLRScheduler(PolyLRScheduler):
    """Scales each group's own rate by the polynomial (1 - epoch / max_steps)^0.9.

    nnU-Net's writes one rate into all groups; from the rate 1 that is the factor.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_steps: int):
        super().__init__(optimizer, 1.0, max_steps)

    def step(self, current_step: int | None = None) -> None:
        super().step(current_step)
        for group in self.optimizer.param_groups:
            group["lr"] *= group["initial_lr"]  # torch's base class and its checkpoints keep it in the group
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
