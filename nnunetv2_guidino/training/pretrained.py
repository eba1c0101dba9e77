"""The pretrained part of a segmentation network: loaded when a training starts, and recorded in its plans."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch.distributed as dist
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunetv2_guidino.architectures.contract import Architecture
from nnunetv2_guidino.plans import inherited

RECORD = "pretrained_source"  # in the plans, beside arch_kwargs


class LoadsPretrained(nnUNetTrainer):
    """A trainer that loads what the plans' `pretrained` names (see architectures.contract.Architecture)."""

    resuming = False  # a checkpoint is about to bring all weights, or has

    def initialize(self) -> None:
        """Build what nnU-Net trains, and load its pretrained part, unless a checkpoint is about to bring all weights.

        Raises:
            GuidinoError: If the pretrained weights are not to be had, or do not fit.
        """
        super().initialize()
        if self.resuming:
            return
        network = self._segmentation_network()
        if isinstance(network, Architecture) and network.pretrained is not None:
            network.load_pretrained()
            if self.is_ddp:
                make_alike(network)
            self.print_to_log_file(f"Pretrained part of {type(network).__name__}: {network.pretrained_source}")
        self._record(self._loaded())

    def bare_network(self) -> Any:
        """The network without what DDP and torch.compile put around it."""
        network = self.network.module if self.is_ddp else self.network
        return getattr(network, "_orig_mod", network)

    def _segmentation_network(self) -> Any:
        """The one that the plans name."""
        return self.bare_network()

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """It has all weights, so that nothing else is loaded: folder and hub may be gone."""
        self.resuming = self.resuming or not self.was_initialized
        super().load_checkpoint(filename_or_checkpoint)
        theirs = inherited(self.my_init_kwargs["plans"], self.configuration_name, "architecture")  # the checkpoint's
        self._record(theirs.get(RECORD))

    def on_train_start(self) -> None:
        """The record is brought up to date before nnU-Net writes the plans."""
        if self.was_initialized and not self.resuming:
            self._record(self._loaded())  # -pretrained_weights may have taken its place
        super().on_train_start()

    def _loaded(self) -> dict[str, Any] | None:
        source = getattr(self._segmentation_network(), "pretrained_source", None)
        return None if source is None else asdict(source)

    def _record(self, source: dict[str, Any] | None) -> None:
        """In the plans, which nnU-Net writes to the model's folder and into checkpoints."""
        section = inherited(self.plans_manager.plans, self.configuration_name, "architecture")
        section.pop(RECORD, None)
        if source is not None:
            section[RECORD] = source


def make_alike(module: nn.Module) -> None:
    """Give all GPUs the first one's weights. nnU-Net has done so before; LoRA's adapters may be drawn anew since."""
    for parameter in module.parameters():
        dist.broadcast(parameter.data, src=0)
