"""Log the terms of the loss, the guide's Dice and the prototypes in use with nnU-Net's logger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from nnunetv2_guidino.model.guide.guided_network import GuidedNetwork
from nnunetv2_guidino.model.losses.dice import dice
from nnunetv2_guidino.model.losses.guided_loss import GuidedLoss
from nnunetv2_guidino.training.progress import prototypes_in_use

Array = npt.NDArray[Any]
GUIDE_COUNTS = ("guide_tp", "guide_fp", "guide_fn")


class GuideLog:
    """Collect the values of a guided training from its steps, and log them after each epoch.

    Args:
        loss: Loss of the training.
        logger: nnU-Net's logger, which gets a list for each value.
        is_ddp: True if the values of several GPUs have to be gathered.
    """

    def __init__(self, loss: GuidedLoss, logger: Any, is_ddp: bool):
        self.loss = loss
        self.logger = logger
        self.is_ddp = is_ddp
        self.terms = [f"{term}_loss" for term in loss.terms]
        values = [f"{part}_{term}" for part in ("train", "val") for term in self.terms]
        values += ["guide_dice", "prototypes_in_use"]
        logger.local_logger.my_fantastic_logging.update({value: [] for value in values})

    def last_step(self) -> dict[str, list[Tensor]]:
        """Return the values of the last step as lists, which nnU-Net can collate.

        They stay on the device until the epoch ends, so that no step waits for a copy.
        """
        return {name: [value] for name, value in self.loss.last_terms().items()}

    def log_training(self, outputs: list[dict[str, Any]], epoch: int) -> None:
        """Log the mean of each term over the training steps of all GPUs."""
        self._log_means("train", self._gather(outputs, self.terms), epoch)

    def log_validation(self, outputs: list[dict[str, Any]], epoch: int) -> None:
        """Log the mean of each term and the guide's Dice over the validation steps of all GPUs."""
        values = self._gather(outputs, [*self.terms, *GUIDE_COUNTS])
        self._log_means("val", values, epoch)
        tp, fp, fn = (int(values[name].sum()) for name in GUIDE_COUNTS)
        self.logger.log("guide_dice", dice(tp, fp, fn), epoch)

    def _gather(self, outputs: list[dict[str, Any]], names: list[str]) -> dict[str, Array]:
        """Return an array with the values of all steps of all GPUs for each name."""
        values = {name: torch.cat([torch.stack(output[name]) for output in outputs]).cpu().numpy() for name in names}
        if not self.is_ddp:
            return values
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, values)
        return {name: np.concatenate([values_of_rank[name] for values_of_rank in gathered]) for name in names}

    def _log_means(self, part: str, values: dict[str, Array], epoch: int) -> None:
        for term in self.terms:
            self.logger.log(f"{part}_{term}", float(values[term].mean()), epoch)

    def end_epoch(self, network: GuidedNetwork, epoch: int, write: Callable[[str], None]) -> None:
        """Log how many prototypes are in use, and write the values of the epoch as lines of text."""
        self.logger.log("prototypes_in_use", prototypes_in_use(network.tokenbook.weights), epoch)
        for part in ("train", "val"):
            terms = (f"{term.removesuffix('_loss')} {self._latest(f'{part}_{term}')}" for term in self.terms)
            write(f"{part} losses: {', '.join(terms)}")
        write(f"Guide Dice {self._latest('guide_dice')}")
        if (fusion := network.late_fusion) is not None:
            weight, bias = (" ".join(f"{value:.3f}" for value in v.tolist()) for v in (fusion.weight, fusion.bias))
            write(f"Late fusion with weight {weight}, bias {bias}")

    def _latest(self, name: str) -> str:
        return f"{self.logger.get_value(name, step=-1):.4f}"
