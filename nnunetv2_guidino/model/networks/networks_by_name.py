"""Plan an architecture by its name, and check that plans fit their architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.networks.contract import Architecture, describe


def planned_architecture(name: str, configuration: Mapping[str, Any], /, **settings: Any) -> dict[str, Any]:
    """Return the section "architecture" of a configuration with which nnU-Net builds the architecture of that name.

    Args:
        name: A name in lists.ARCHITECTURES.
        configuration: The configuration that nnU-Net planned.
        settings: Settings of the architecture; the others have their defaults.

    Raises:
        GuidinoError: If there is no such architecture or setting, or if the architecture does not support the
            configuration's number of dimensions.
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
    """Check that the network can take the planned patch, and that nnU-Net weighs its outputs correctly.

    Args:
        configuration: The configuration in the plans.
        deep_supervision: Check the weights of several outputs, too; without deep supervision nnU-Net reads no strides.

    Raises:
        GuidinoError: If a check fails. The error names a patch size or number of strides that works.
    """
    description = describe(network)
    description.check_patch(configuration["patch_size"])
    if deep_supervision:
        description.check_strides(configuration["architecture"]["arch_kwargs"]["strides"])
