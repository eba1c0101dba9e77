"""Another network in the plans: what is planned for it, where it takes the guide, and why, in lines."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunetv2_guidino import lists
from nnunetv2_guidino.config import PLANS_KEY
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.source import find_encoder
from nnunetv2_guidino.model.networks.contract import Architecture, Description, describe
from nnunetv2_guidino.model.networks.networks_by_name import planned_architecture
from nnunetv2_guidino.model.networks.token_network import TokenNetwork
from nnunetv2_guidino.nnunet.descriptions import configuration_of, errors_in
from nnunetv2_guidino.tools.plan.encoder_name import absolute_encoder
from nnunetv2_guidino.tools.plan.network_options import Network
from nnunetv2_guidino.tools.plan.trainable import build_without_memory, nearest_patch


def planned_section(network: Network, configuration: Mapping[str, Any], guide: Mapping[str, Any]) -> dict[str, Any]:
    """The section "architecture" of a configuration, with which nnU-Net builds the network.

    What is pretrained in its paper starts from what the paper has, unless the settings say otherwise. A network on
    tokens stands on the guide's encoder, whose architecture is written into the section, and sees images of the same
    size, so that one pass serves both.

    Args:
        network: To be planned.
        configuration: As nnU-Net planned it.
        guide: The section of the plans, complete.

    Raises:
        GuidinoError: If the network does not live in the configuration's dimensions, has no such setting, or its
            encoder is not to be found.
    """
    architecture: type[Architecture] = lists.ARCHITECTURES[network.name].load()
    settings = dict(network.settings)
    if network.width == "planned":
        settings = architecture.planned_widths(configuration) | settings
    on_tokens = issubclass(architecture, TokenNetwork)
    if "pretrained" in inspect.signature(architecture).parameters:
        settings.setdefault("pretrained", guide["encoder"] if on_tokens else architecture.published_weights)
    if on_tokens:
        settings.setdefault("min_input_size", guide["min_input_size"])
        if "encoder_config" not in settings:
            folder = find_encoder(settings["pretrained"] or guide["encoder"])
            settings["encoder_config"] = read_encoder_config(folder, None)
    return planned_architecture(network.name, configuration, **settings)


_STARTS = "  it starts from {}, loaded when a training begins; --set architecture.pretrained=null: at random"


def put_network(
    plans: dict[str, Any],
    file: Path,
    configuration: str,
    network: Network,
    dataset_json: dict[str, Any],
    given: Collection[str],
) -> list[str]:
    """Put a network into every configuration in whose dimensions it lives, and leave the others out.

    Plans are of one network: a configuration that stayed as it was would train another one under their name.

    Args:
        plans: Into which it is put, with the guide in them.
        file: Where they come from, for the messages.
        configuration: That must have it.
        network: To be put there.
        dataset_json: nnU-Net's, with labels and channels.
        given: Paths of values that the user has set, which stay.

    Returns:
        What was chosen, in lines.

    Raises:
        GuidinoError: If it cannot be planned or built, or does not live in the configuration's dimensions.
    """
    if isinstance(pretrained := network.settings.get("pretrained"), str):
        network = replace(network, settings={**network.settings, "pretrained": absolute_encoder(pretrained)})
    architecture: type[Architecture] = lists.ARCHITECTURES[network.name].load()
    configurations, lines, foreign = plans["configurations"], list[str](), list[str]()
    for name in [name for name, raw in configurations.items() if "architecture" in raw]:  # the others inherit it
        with errors_in(file, f"cannot have {network.name} in configurations.{name}"):
            if len(configuration_of(plans, file, name)[1].patch_size) in architecture.dimensions:
                patch_is_given = f"configurations.{name}.patch_size" in given
                lines += [f"{name}:", *_put(plans, file, name, network, dataset_json, patch_is_given)]
            else:
                foreign.append(name)
    foreign = with_heirs(plans, foreign)
    lives_in = f"{network.name} is an architecture for {architecture.lives_in()}"
    if configuration in foreign:
        raise GuidinoError(f"-c {configuration}: {lives_in}; give -c a configuration of such patches")
    for name in foreign:
        del configurations[name]
    return lines + ([f"left out: {', '.join(foreign)}, since {lives_in}"] if foreign else [])


def _put(
    plans: dict[str, Any], file: Path, name: str, network: Network, dataset_json: dict[str, Any], patch_is_given: bool
) -> list[str]:
    raw, guide = plans["configurations"][name], plans[PLANS_KEY]
    planned = configuration_of(plans, file, name)[1].configuration
    patch = list(planned["patch_size"])
    raw["architecture"] = planned_section(network, planned, guide)
    description = _description(plans, file, name, dataset_json)
    fitting = patch if patch_is_given else nearest_patch(f"configurations.{name}", patch, description.divisor)
    if fitting != patch:
        raw["patch_size"] = fitting
        raw["architecture"] = planned_section(network, {**planned, "patch_size": fitting}, guide)
    settings = dict(raw["architecture"]["arch_kwargs"])
    strides = settings.pop("strides")
    if "encoder_config" in settings and "encoder_config" not in network.settings:
        settings["encoder_config"] = f"of {settings['pretrained'] or guide['encoder']}"
    whose = "nnU-Net's plans" if network.width == "planned" else "its paper"
    but = ", but for what you set" if network.settings else ""
    return [
        f"  {description.name} with the widths of {whose}{but}:",
        *(f"    {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()),
        *([_STARTS.format(settings["pretrained"])] if settings.get("pretrained") else []),
        f"  {len(strides)} strides, from which nnU-Net's loss weighs {_outputs(description)} rightly",
        f"  patch {fitting}, {_reason(patch, fitting, description, patch_is_given)}",
    ]


def _outputs(description: Description) -> str:
    return {None: "its outputs", 1: "its one output"}.get(description.outputs, f"its {description.outputs} outputs")


def _reason(patch: list[int], fitting: list[int], description: Description, given: bool) -> str:
    if given:
        return "as you set it"
    if fitting != patch:
        return f"the nearest to the planned {patch} with sides that are multiples of {list(description.divisor or ())}"
    any_size = description.divisor is not None and max(description.divisor) == 1
    return "as planned" + ("; it takes any size, and pads or resizes inside" if any_size else "")


def put_gate(plans: dict[str, Any], file: Path, name: str, dataset_json: dict[str, Any], given: Collection[str]) -> str:
    """Let the guide act where the configuration's network takes it, unless the user has said where.

    Args:
        plans: With the guide in them, and whose gate_at is kept if the network takes it.
        file: Where they come from, for the messages.
        name: Of the configuration.
        dataset_json: nnU-Net's, with labels and channels.
        given: Settings of the guide that the user has given.

    Returns:
        What was chosen, in a line.
    """
    section, description = plans[PLANS_KEY], _description(plans, file, name, dataset_json)
    if "gate_at" in given:
        return f"gate_at {section['gate_at']}, as you set it"
    takes = description.gates or tuple(lists.GATE_POSITIONS if description.features else ("input",))
    if section["gate_at"] not in takes:
        section["gate_at"] = takes[0]
    return f"gate_at {section['gate_at']}, since you set none: {description.name} takes a guide at {', '.join(takes)}"


def _description(plans: dict[str, Any], file: Path, name: str, dataset_json: dict[str, Any]) -> Description:
    manager, settings = configuration_of(plans, file, name)
    return describe(build_without_memory(manager, settings, dataset_json, file)[0])


def with_heirs(plans: dict[str, Any], names: Collection[str]) -> list[str]:
    """These configurations and those that inherit from them."""
    found = set(names)
    while True:
        heirs = {name for name, value in plans["configurations"].items() if value.get("inherits_from") in found}
        if heirs <= found:
            return sorted(found)
        found |= heirs
