"""Check that a configuration can be trained: its network is built and run on torch's meta device."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.guide.positions import build_gates
from nnunetv2_guidino.model.networks.contract import Description, describe, nearest_multiples
from nnunetv2_guidino.nnunet.descriptions import errors_in
from nnunetv2_guidino.nnunet.plans_file import PlansFile


def check_trainable(plans: PlansFile, name: str) -> None:
    """Refuse a configuration whose training would fail.

    Raises:
        GuidinoError: If the batch size or the patch is impossible (the error names the nearest possible one), or the
            network cannot be built or run.
    """
    where = f"configurations.{name}"
    raw = plans.plans["configurations"][name]
    if "batch_size" in raw and raw["batch_size"] < 1:
        raise GuidinoError(f"{where}.batch_size is {raw['batch_size']}; the nearest that can be trained with is 1")
    if "patch_size" in raw and not all(type(side) is int and side >= 1 for side in raw["patch_size"]):
        raise GuidinoError(f"{where}.patch_size is {raw['patch_size']}; expected whole numbers from 1")
    settings, description = plans.configuration(name), describe_network(plans, name)
    patch_size = settings.patch_size
    fitting = nearest_patch(where, patch_size, description.divisor)
    if fitting != list(patch_size):
        raise GuidinoError(
            f"{where}.patch_size is {patch_size}, which the network cannot take: its sides must be multiples of "
            f"{list(description.divisor or ())}, and more than one pixel must be left at the bottom; the nearest is "
            f"{fitting}"
        )
    with errors_in(plans.label, f"has a network in {where} that cannot be trained"):
        description.check_strides(settings.network_arch_init_kwargs.get("strides", []))
        import torch

        with torch.device("meta"), torch.no_grad():
            plans.network(name).train()(torch.zeros(1, plans.input_channels(name), *patch_size))


def check_gate(plans: PlansFile, name: str) -> None:
    """Refuse a gate that the configuration's network has no place for.

    Raises:
        GuidinoError: If there is no such place, or the network cannot be built.
    """
    channels = len(plans.configuration(name).normalization_schemes)
    build_gates(describe_network(plans, name), plans.guide.gate_at, plans.guide.gate, channels)


def describe_network(plans: PlansFile, name: str) -> Description:
    """Describe the network of a configuration.

    Raises:
        GuidinoError: If the network cannot be built.
    """
    with errors_in(plans.label, f"has no network in configurations.{name}"):
        return describe(plans.network(name))


def nearest_patch(where: str, patch_size: Sequence[int], divisor: Sequence[int] | None) -> list[int]:
    """Return the nearest patch whose sides are multiples of the divisor, with more than one pixel at the bottom.

    nnU-Net's instance norm refuses a single pixel while training. If no divisor is known, any patch may fit.

    Raises:
        GuidinoError: If the patch has another number of sides. The error names the configuration.
    """
    if divisor is None:
        return list(patch_size)
    if len(divisor) != len(patch_size):
        raise GuidinoError(f"{where}.patch_size is {list(patch_size)}; the network takes {len(divisor)} sides")
    nearest = nearest_multiples(patch_size, divisor)
    return nearest if nearest != list(divisor) else [2 * by for by in divisor]
