"""Architectures by name: what plans say to have one, and whether plans fit theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.networks.contract import Architecture, describe


def planned_architecture(name: str, configuration: Mapping[str, Any], /, **settings: Any) -> dict[str, Any]:
    """The section "architecture" of a plans' configuration that makes nnU-Net build the architecture of that name.

    Args:
        name: One of lists.ARCHITECTURES.
        configuration: As nnU-Net planned it.
        settings: The architecture's own, by name; its defaults for the others.

    Raises:
        GuidinoError: If there is no such architecture or setting, or it does not live in the configuration's
            dimensions.
    """
    entry = lists.find(lists.ARCHITECTURES, name, "the architecture")
    architecture: type[Architecture] = entry.load()
    dimensions = len(configuration["patch_size"])
    if dimensions not in architecture.dimensions:
        raise GuidinoError(
            f"{name} is an architecture for {architecture.lives_in()}; this configuration has {dimensions} dimensions"
        )
    return {
        "network_class_name": entry.target.replace(":", "."),
        "arch_kwargs": architecture.planned(configuration, **settings),
        "_kw_requires_import": [],
    }


def check_configuration(network: nn.Module, configuration: Mapping[str, Any], deep_supervision: bool = True) -> None:
    """Refuse to train on a patch that the network cannot take, or with outputs that nnU-Net would weigh wrongly.

    Args:
        configuration: Of the plans.
        deep_supervision: Whether nnU-Net's loss is to weigh several outputs; without, it reads no strides.

    Raises:
        GuidinoError: Naming what would work.
    """
    description = describe(network)
    description.check_patch(configuration["patch_size"])
    if deep_supervision:
        description.check_strides(configuration["architecture"]["arch_kwargs"]["strides"])
