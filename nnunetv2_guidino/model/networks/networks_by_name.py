"""Write an architecture into the plans by its name, and check that plans fit their architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.networks.contract import Architecture, describe


def planned_architecture(name: str, configuration: Mapping[str, Any], /, **settings: Any) -> dict[str, Any]:
    """Return the section "architecture" of a configuration with which nnU-Net builds the architecture of this name.

    Args:
        name: Name in lists.ARCHITECTURES.
        configuration: Configuration that nnU-Net planned.
        settings: Settings of the architecture by name; missing settings get their defaults.

    Raises:
        GuidinoError: If there is no architecture or setting of a name, or if the architecture is not for the
            configuration's dimensions.
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
    """Check that the network can take the patch, and that nnU-Net weighs its outputs correctly.

    Args:
        network: The network.
        configuration: Configuration of the plans.
        deep_supervision: True if nnU-Net's loss weighs several outputs; otherwise it reads no strides.

    Raises:
        GuidinoError: If a check fails. The error names values that would work.
    """
    description = describe(network)
    description.check_patch(configuration["patch_size"])
    if deep_supervision:
        description.check_strides(configuration["architecture"]["arch_kwargs"]["strides"])
