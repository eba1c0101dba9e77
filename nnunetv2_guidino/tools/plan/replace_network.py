"""Put another network into plans, and say in lines what is planned for it, where it takes the guide, and why."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from nnunetv2_guidino import lists
from nnunetv2_guidino.config import PLANS_KEY
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.source import find_encoder, looks_like_a_path
from nnunetv2_guidino.model.networks.contract import Architecture, Description, describe
from nnunetv2_guidino.model.networks.networks_by_name import planned_architecture
from nnunetv2_guidino.model.networks.token_network import TokenNetwork
from nnunetv2_guidino.nnunet.descriptions import errors_in
from nnunetv2_guidino.nnunet.plans_file import PlansFile
from nnunetv2_guidino.tools.plan.network_options import Network
from nnunetv2_guidino.tools.plan.trainable import describe_network, nearest_patch

_STARTS = "  it starts from {}, loaded when a training begins; --set architecture.pretrained=null: at random"


def planned_section(network: Network, configuration: Mapping[str, Any], guide: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section "architecture" of a configuration, with which nnU-Net builds the network.

    A network that is pretrained in its paper starts from the same weights, unless the settings say otherwise. A network
    on tokens uses the guide's encoder, whose architecture is written into the section, and sees images of the same
    size, so that one pass serves both.

    Args:
        network: The network to plan.
        configuration: Configuration that nnU-Net planned.
        guide: The complete guide section of the plans.

    Raises:
        GuidinoError: If the network does not support the configuration's dimensions, has no such setting, or its
            encoder cannot be found.
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


def with_network(
    plans: PlansFile, network: Network, configuration: str, given: Collection[str]
) -> tuple[PlansFile, list[str]]:
    """Put a network into every configuration whose dimensions it supports, and leave the others out.

    Plans describe one network: a configuration that stayed as it was would train another one under their name.

    Args:
        plans: Plans with the guide.
        network: The network.
        configuration: Configuration that must have it.
        given: Paths of values that the user has set, which stay.

    Returns:
        The new plans, and lines that describe the choices.

    Raises:
        GuidinoError: If the network cannot be planned or built, or does not support the configuration's dimensions.
    """
    if isinstance(pretrained := network.settings.get("pretrained"), str):
        network = replace(network, settings={**network.settings, "pretrained": absolute_encoder(pretrained)})
    architecture: type[Architecture] = lists.ARCHITECTURES[network.name].load()
    lines, unsupported = list[str](), list[str]()
    for name, raw in plans.plans["configurations"].items():
        if "architecture" not in raw:
            continue  # it inherits its network
        with errors_in(plans.source, f"cannot have {network.name} in configurations.{name}"):
            if len(plans.configuration(name).patch_size) in architecture.dimensions:
                plans, chosen = _put(plans, name, network, f"configurations.{name}.patch_size" in given)
                lines += [f"{name}:", *chosen]
            else:
                unsupported.append(name)
    unsupported = plans.affected_by(unsupported)
    lives_in = f"{network.name} is an architecture for {architecture.lives_in()}"
    if configuration in unsupported:
        raise GuidinoError(f"-c {configuration}: {lives_in}; give -c a configuration of such patches")
    if unsupported:
        lines.append(f"left out: {', '.join(unsupported)}, since {lives_in}")
    kept = {name: raw for name, raw in plans.plans["configurations"].items() if name not in unsupported}
    return plans.changed(configurations=kept), lines


def _put(plans: PlansFile, name: str, network: Network, patch_is_given: bool) -> tuple[PlansFile, list[str]]:
    guide, planned = plans.plans[PLANS_KEY], plans.configuration(name).configuration
    patch = list(planned["patch_size"])
    section = planned_section(network, planned, guide)
    plans = plans.with_configuration(name, architecture=section)
    description = describe(plans.network(name))
    fitting = patch if patch_is_given else nearest_patch(f"configurations.{name}", patch, description.divisor)
    if fitting != patch:
        section = planned_section(network, {**planned, "patch_size": fitting}, guide)
        plans = plans.with_configuration(name, patch_size=fitting, architecture=section)
    settings = dict(section["arch_kwargs"])
    strides = settings.pop("strides")
    if "encoder_config" in settings and "encoder_config" not in network.settings:
        settings["encoder_config"] = f"of {settings['pretrained'] or guide['encoder']}"
    whose = "nnU-Net's plans" if network.width == "planned" else "its paper"
    changed = ", but for what you set" if network.settings else ""
    return plans, [
        f"  {description.name} with the widths of {whose}{changed}:",
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


def with_fitting_gate(plans: PlansFile, name: str, given: Collection[str]) -> tuple[PlansFile, str]:
    """Let the guide act where the configuration's network takes it, unless the user has said where.

    Args:
        plans: Plans with the guide, whose gate_at stays if the network takes it.
        name: Name of the configuration.
        given: Settings of the guide that the user has given.

    Returns:
        The plans, and a line that describes the choice.
    """
    description, gate_at = describe_network(plans, name), plans.guide.gate_at
    if "gate_at" in given:
        return plans, f"gate_at {gate_at}, as you set it"
    takes = description.gates or tuple(lists.GATE_POSITIONS if description.features else ("input",))
    if gate_at not in takes:
        gate_at = takes[0]
        plans = plans.with_guide({"gate_at": gate_at})
    return plans, f"gate_at {gate_at}, since you set none: {description.name} takes a guide at {', '.join(takes)}"


def absolute_encoder(encoder: str) -> str:
    """Return the absolute path of an encoder's folder, since trainings start elsewhere, or a name on the hub as it is.

    Raises:
        GuidinoError: If the text can only be a path and there is no such folder, or it can be neither.
    """
    folder = Path(encoder).expanduser()
    if folder.is_dir():
        return str(folder.absolute())
    if folder.exists():
        raise GuidinoError(f"encoder {encoder} is a file; give the folder that it is in")
    if looks_like_a_path(encoder):
        raise GuidinoError(f"encoder {encoder}: there is no such folder; give one, or a name on the Hugging Face hub")
    try:
        validate_repo_id(encoder)
    except HFValidationError as error:
        raise GuidinoError(f"encoder {encoder!r} is neither a folder nor a name on the Hugging Face hub") from error
    return encoder
