"""Pass the terms of the loss and the guide's Dice through nnU-Net's step outputs to its logger."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from nnunetv2_guidino.model.guide.guided_network import GuidedNetwork
from nnunetv2_guidino.model.losses.dice import dice
from nnunetv2_guidino.training.baseline import nnUNetTrainerGuiDINOBaseline
from nnunetv2_guidino.training.progress import prototypes_in_use

Array = npt.NDArray[Any]


class LoggedTerms(nnUNetTrainerGuiDINOBaseline):
    """A trainer of a GuidedNetwork with a GuidedLoss that logs the loss terms, the guide's Dice and the prototypes."""

    def _guided_network(self) -> GuidedNetwork:
        return self.bare_network()

    def _segmentation_network(self) -> Any:
        return self._guided_network().network

    def _add_logged_values(self) -> None:
        self.logged_terms = [f"{term}_loss" for term in self.loss.terms]
        values = [f"{part}_{term}" for part in ("train", "val") for term in self.logged_terms]
        values += ["guide_dice", "prototypes_in_use"]
        self.logger.local_logger.my_fantastic_logging.update({value: [] for value in values})

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run nnU-Net's step and add each term of the loss to its outputs."""
        return {**super().train_step(batch), **self._last_terms()}

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run nnU-Net's step and add each term of the loss and the counts for the guide's Dice to its outputs."""
        return {**super().validation_step(batch), **self._last_terms()}

    def _last_terms(self) -> dict[str, list[Tensor]]:
        """Return the last terms as lists, which nnU-Net can collate.

        They stay on the device until the epoch ends, so that no step waits for a copy.
        """
        return {name: [term] for name, term in self.loss.last_terms().items()}

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Log the mean of each term over the steps of all GPUs."""
        super().on_train_epoch_end(train_outputs)
        self._log_terms("train", self._gather(train_outputs))

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Log the mean of each term and the guide's Dice over the steps of all GPUs."""
        values = self._gather(val_outputs)
        super().on_validation_epoch_end(val_outputs)
        self._log_terms("val", values)
        tp, fp, fn = (int(values[f"guide_{count}"].sum()) for count in ("tp", "fp", "fn"))
        self.logger.log("guide_dice", dice(tp, fp, fn), self.current_epoch)

    def _gather(self, outputs: list[dict[str, Any]]) -> dict[str, Array]:
        """Collect the values of `_last_terms` from the steps of all GPUs, one array for each name."""
        names = [name for name in self.loss.last_terms() if name in outputs[0]]
        values = {name: torch.cat([torch.stack(output[name]) for output in outputs]).cpu().numpy() for name in names}
        if not self.is_ddp:
            return values
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, values)
        return {name: np.concatenate([of_one_rank[name] for of_one_rank in gathered]) for name in names}

    def _log_terms(self, part: str, values: dict[str, Array]) -> None:
        for term in self.logged_terms:
            self.logger.log(f"{part}_{term}", float(values[term].mean()), self.current_epoch)

    def on_epoch_end(self) -> None:
        """Write the terms and the guide's Dice to the training log, and log how many prototypes are in use."""
        for part in ("train", "val"):
            terms = (
                f"{term.removesuffix('_loss')} {self.logger.get_value(f'{part}_{term}', step=-1):.4f}"
                for term in self.logged_terms
            )
            self.print_to_log_file(f"{part} losses:", ", ".join(terms))
        self.print_to_log_file(f"Guide Dice {self.logger.get_value('guide_dice', step=-1):.4f}")
        fusion = self._guided_network().late_fusion
        if fusion is not None:
            weight, bias = (" ".join(f"{value:.3f}" for value in p.tolist()) for p in (fusion.weight, fusion.bias))
            self.print_to_log_file(f"Late fusion with weight {weight}, bias {bias}")
        in_use = prototypes_in_use(self._guided_network().tokenbook.weights)
        self.logger.log("prototypes_in_use", in_use, self.current_epoch)
        super().on_epoch_end()
