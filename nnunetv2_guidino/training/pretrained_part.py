"""Load the pretrained part of a segmentation network when a training starts, and record its source in the plans."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch.distributed as dist
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunetv2_guidino.model.networks.contract import Architecture
from nnunetv2_guidino.nnunet.plans import inherited

RECORD = "pretrained_source"  # in the plans, beside arch_kwargs


class LoadsPretrained(nnUNetTrainer):
    """A trainer that loads the weights named by `pretrained` in the plans (see networks.contract.Architecture)."""

    resuming = False  # True: a checkpoint brings all weights

    def initialize(self) -> None:
        """Build network, loss and optimizer, and load the pretrained part, unless a checkpoint will bring all weights.

        Raises:
            GuidinoError: If the pretrained weights are missing or do not fit.
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
        """Return the network without the wrappers of DistributedDataParallel and torch.compile."""
        network = self.network.module if self.is_ddp else self.network
        return getattr(network, "_orig_mod", network)

    def _segmentation_network(self) -> Any:
        """Return the network that the plans name."""
        return self.bare_network()

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Load a checkpoint and no pretrained weights: it has all weights, and folder or hub may be gone."""
        self.resuming = self.resuming or not self.was_initialized
        super().load_checkpoint(filename_or_checkpoint)
        theirs = inherited(self.my_init_kwargs["plans"], self.configuration_name, "architecture")  # of the checkpoint
        self._record(theirs.get(RECORD))

    def on_train_start(self) -> None:
        """Update the record before nnU-Net writes the plans."""
        if self.was_initialized and not self.resuming:
            self._record(self._loaded())  # -pretrained_weights may have replaced the pretrained part
        super().on_train_start()

    def _loaded(self) -> dict[str, Any] | None:
        source = getattr(self._segmentation_network(), "pretrained_source", None)
        return None if source is None else asdict(source)

    def _record(self, source: dict[str, Any] | None) -> None:
        """Record the source in the plans, which nnU-Net writes to the model folder and into checkpoints."""
        section = inherited(self.plans_manager.plans, self.configuration_name, "architecture")
        section.pop(RECORD, None)
        if source is not None:
            section[RECORD] = source


def make_alike(module: nn.Module) -> None:
    """Copy the first GPU's weights to all GPUs.

    DistributedDataParallel did so when it wrapped the network, but weights have been loaded since, and LoRA's adapters
    may have been drawn anew.
    """
    for parameter in module.parameters():
        dist.broadcast(parameter.data, src=0)
