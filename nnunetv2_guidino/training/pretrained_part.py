"""Load the pretrained part of a segmentation network when a training starts, and record its source in the plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch.distributed as dist
from torch import nn

from nnunetv2_guidino.model.networks.contract import Architecture
from nnunetv2_guidino.nnunet.plans import inherited

RECORD = "pretrained_source"  # in the plans, beside arch_kwargs


def load_pretrained_part(network: nn.Module, is_ddp: bool, log: Callable[[str], None]) -> None:
    """Load the weights that `pretrained` in the plans names, if the network has this setting.

    Raises:
        GuidinoError: If the weights are missing or do not fit.
    """
    if isinstance(network, Architecture) and network.pretrained is not None:
        network.load_pretrained()
        if is_ddp:
            copy_to_all_gpus(network)
        log(f"Pretrained part of {type(network).__name__}: {network.pretrained_source}")


def source_of(network: nn.Module) -> dict[str, Any] | None:
    """Return the source of the pretrained weights that the network holds, None if it holds none."""
    source = getattr(network, "pretrained_source", None)
    return None if source is None else asdict(source)


def recorded_source(plans: dict[str, Any], configuration: str) -> dict[str, Any] | None:
    """Return the source that the plans record, None if they record none."""
    return inherited(plans, configuration, "architecture").get(RECORD)


def record_source(plans: dict[str, Any], configuration: str, source: dict[str, Any] | None) -> None:
    """Record the source in the plans, which nnU-Net writes to the model folder and into checkpoints."""
    section = inherited(plans, configuration, "architecture")
    section.pop(RECORD, None)
    if source is not None:
        section[RECORD] = source


def copy_to_all_gpus(module: nn.Module) -> None:
    """Copy the first GPU's weights to all GPUs.

    DistributedDataParallel did so when it wrapped the network, but weights have been loaded since, and LoRA's adapters
    may have been drawn anew.
    """
    for parameter in module.parameters():
        dist.broadcast(parameter.data, src=0)
