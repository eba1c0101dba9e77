"""Whether a configuration could be trained: the network is built and run without memory (torch's meta device)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.guide.positions import build_gates
from nnunetv2_guidino.model.networks.contract import describe, nearest_multiples
from nnunetv2_guidino.nnunet.descriptions import configuration_of, errors_in, label_manager_of


def check_trainable(plans: dict[str, Any], file: Path, name: str, dataset_json: dict[str, Any]) -> None:
    """Refuse what would die in training.

    Args:
        plans: With the changes.
        file: Where they come from, for the messages.
        name: Of the configuration.
        dataset_json: nnU-Net's, with labels and channels.

    Raises:
        GuidinoError: For a batch size or a patch that cannot be, with the nearest that can, or a network that cannot be
            built.
    """
    where = f"configurations.{name}"
    raw = plans["configurations"][name]
    if "batch_size" in raw and raw["batch_size"] < 1:
        raise GuidinoError(f"{where}.batch_size is {raw['batch_size']}; the nearest that can be trained with is 1")
    if "patch_size" in raw and not all(type(side) is int and side >= 1 for side in raw["patch_size"]):
        raise GuidinoError(f"{where}.patch_size is {raw['patch_size']}; expected whole numbers from 1")
    manager, settings = configuration_of(plans, file, name)
    patch_size = settings.patch_size
    with errors_in(file, f"with these changes has no network in {where}"):
        network, channels = build_without_memory(manager, settings, dataset_json, file)
        description = describe(network)
    fitting = nearest_patch(where, patch_size, description.divisor)
    if fitting != list(patch_size):
        raise GuidinoError(
            f"{where}.patch_size is {patch_size}, which the network cannot take: its sides must be multiples of "
            f"{list(description.divisor or ())}, and more than one pixel must be left at the bottom; the nearest is "
            f"{fitting}"
        )
    with errors_in(file, f"with these changes has a network in {where} that cannot be trained"):
        description.check_strides(settings.network_arch_init_kwargs.get("strides", []))
        import torch

        with torch.device("meta"), torch.no_grad():
            network.train()(torch.zeros(1, channels, *patch_size))


def check_gate(plans: dict[str, Any], file: Path, name: str, dataset_json: dict[str, Any]) -> None:
    """Refuse a gate that the configuration's network has no place for.

    Args and errors are those of `check_trainable`.
    """
    manager, settings = configuration_of(plans, file, name)
    with errors_in(file, f"has no network in configurations.{name}"):
        description = describe(build_without_memory(manager, settings, dataset_json, file)[0])
    config = GuideConfig.from_plans(plans)
    build_gates(description, config.gate_at, config.gate, len(settings.normalization_schemes))


def nearest_patch(where: str, patch_size: Sequence[int], divisor: Sequence[int] | None) -> list[int]:
    """The nearest patch whose sides are multiples of the divisor's, with more than one pixel left at the bottom.

    nnU-Net's instance norm refuses a single pixel while training. Where no divisor is known, any patch may fit.

    Raises:
        GuidinoError: If the patch has another number of sides, naming the configuration.
    """
    if divisor is None:
        return list(patch_size)
    if len(divisor) != len(patch_size):
        raise GuidinoError(f"{where}.patch_size is {list(patch_size)}; the network takes {len(divisor)} sides")
    nearest = nearest_multiples(patch_size, divisor)
    return nearest if nearest != list(divisor) else [2 * by for by in divisor]


def build_without_memory(manager: Any, settings: Any, dataset_json: dict[str, Any], file: Path) -> tuple[Any, int]:
    """The planned network without memory, and its number of input channels."""
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    labels = label_manager_of(manager, dataset_json, file.with_name("dataset.json"))
    channels = determine_num_input_channels(manager, settings, dataset_json)
    with torch.device("meta"):
        network = get_network_from_plans(
            settings.network_arch_class_name,
            settings.network_arch_init_kwargs,
            settings.network_arch_init_kwargs_req_import,
            channels,
            labels.num_segmentation_heads,
            allow_init=False,
            deep_supervision=True,
        )
    return network, int(channels)
