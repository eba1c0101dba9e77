"""Derive plans for an experiment with the guide: a sibling with a name of its own that shares the preprocessed data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_guidino.bounds import GIGABYTES
from nnunetv2_guidino.config import PLANS_KEY
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.descriptions import errors_in
from nnunetv2_guidino.nnunet.folders import preprocessed_folder
from nnunetv2_guidino.nnunet.plans_file import PlansFile
from nnunetv2_guidino.tools.plan.changes import changed_lines, with_values
from nnunetv2_guidino.tools.plan.network_options import Network
from nnunetv2_guidino.tools.plan.replace_network import absolute_encoder, with_fitting_gate, with_network
from nnunetv2_guidino.tools.plan.trainable import check_gate, check_trainable

RESERVED = ("dataset", "dataset_fingerprint", "splits_final")  # nnU-Net's own files beside the plans
LONGEST_NAME = 100  # nnU-Net makes it a part of a folder's name


@dataclass(frozen=True)
class Planned:
    """The result of `plan`.

    Args:
        file: The new plans file.
        source: The plans file from which it was derived.
        plans: Content of the new plans.
        differences: A line for each value that differs from the source.
        choices: Lines that describe and explain what was planned for another network; none for the source's network.
        memory: GPU memory that a training needs, in words.
    """

    file: Path
    source: Path
    plans: dict[str, Any]
    differences: list[str]
    choices: list[str]
    memory: str


def plan(
    dataset: str,
    output: str,
    plans: str = "nnUNetPlans",
    configuration: str = "2d",
    settings: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
    gpu_memory_target: float | None = None,
    network: Network | None = None,
) -> Planned:
    """Write plans for an experiment beside those that nnU-Net made.

    Args:
        dataset: Name or number of a data set that nnU-Net has preprocessed.
        output: Name of the new plans.
        plans: Name of the plans to derive from.
        configuration: Configuration whose memory is estimated and whose batch size is lowered.
        settings: Settings of the guide by key; "lora.rank" is a key of the section "lora".
        changes: Other values in the plans by path, such as "configurations.2d.batch_size".
        gpu_memory_target: GPU memory in GB; the batch size is lowered, never below 2, until the estimate fits.
        network: Network for every configuration whose dimensions it supports; the others are left out, and the guide
            acts where the network takes it. None: the source's network.

    Raises:
        GuidinoError: If a value is wrong, or the plans cannot be trained; nothing is written then.
    """
    _check_name(output)
    if gpu_memory_target is not None:
        GIGABYTES.check("--gpu_memory_target_in_gb", gpu_memory_target)
    settings, changes, choices = dict(settings or {}), dict(changes or {}), list[str]()
    source = PlansFile.read(preprocessed_folder(dataset) / f"{plans}.json")
    if configuration not in source.plans["configurations"]:
        known = ", ".join(source.plans["configurations"])
        raise GuidinoError(f"-c {configuration}: the plans have no such configuration; there are {known}")
    derived = _with_guide(source, output, settings)
    # The network is planned for the patch that the user sets, and the user may change the planned network.
    to_network = {path: changes[path] for path in changes if network is not None and ".architecture." in path}
    to_plans = {path: changes[path] for path in changes if path not in to_network}
    derived = with_values(derived, to_plans)
    changed = {path.split(".")[1] for path in changes}
    if network is not None:
        derived, choices = with_network(derived, network, configuration, given=changes)
        derived, choice = with_fitting_gate(derived, configuration, given=settings)
        choices.append(choice)
        changed = {*derived.plans["configurations"]}
    derived = with_values(derived, to_network)
    for name in derived.affected_by(changed):
        check_trainable(derived, name)
    check_gate(derived, configuration)
    with errors_in(source.path, "has no network whose memory can be estimated"):
        derived, memory = _with_memory(derived, configuration, gpu_memory_target)
    if derived.path.exists():  # results that were made with it would no longer belong to it
        raise GuidinoError(f"{derived.path} exists already; give -o another name")
    derived.write()
    lines = list(changed_lines(source, derived))
    return Planned(derived.path, source.path, derived.plans, lines, choices, memory)


def guide_section(path: Path) -> dict[str, Any]:
    """Return the complete guide section of a plans file or of a trained model's folder.

    Raises:
        GuidinoError: If there is no such file, or its guide section is invalid.
    """
    if path.is_dir():
        if not (path / "plans.json").is_file():
            raise GuidinoError(f"{path} has no plans.json; expected a trained model's folder, or a plans file")
        path = path / "plans.json"
    return PlansFile.read(path).guide.to_plans()


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or "__" in name:
        raise GuidinoError(f"-o {name}: expected letters, digits, - and single _: it names files and folders")
    if name in RESERVED or name.endswith(".json") or len(name) > LONGEST_NAME:
        raise GuidinoError(
            f"-o {name}: expected a name of plans, without .json, not longer than {LONGEST_NAME} letters, and none of "
            f"{', '.join(RESERVED)}, which are nnU-Net's"
        )


def _with_guide(source: PlansFile, name: str, given: dict[str, Any]) -> PlansFile:
    adapters = [key for key in given if key.startswith("lora.")]
    if "lora" in given and given["lora"] is None and adapters:
        raise GuidinoError(f"lora is switched off, but {adapters[0]} is set: leave one of the two out")
    _ = source.guide  # an error in the source names its file
    derived = source.with_guide(given, plans_name=name)
    if "encoder" in given or "encoder" not in source.plans.get(PLANS_KEY, {}):
        derived = derived.with_guide({"encoder": absolute_encoder(derived.guide.encoder)})
    return derived


def _with_memory(plans: PlansFile, configuration: str, target: float | None) -> tuple[PlansFile, str]:
    """Return the GPU memory of a training in words, and plans whose batch size fits into the target in GB."""
    from nnunetv2_guidino.tools.plan.memory import estimate

    memory = estimate(plans, configuration)
    if memory is None:
        reason = "the encoder is not on this machine, or the network does not count itself"
        if target is not None:
            raise GuidinoError(f"the memory cannot be estimated: {reason}")
        return plans, f"no estimate of the memory: {reason}"
    planned = int(plans.configuration(configuration).batch_size)
    batch_size = planned if target is None else memory.largest_batch(target, planned)
    if batch_size != planned:
        plans = plans.with_configuration(configuration, batch_size=batch_size)
    text = memory.describe(batch_size)
    if target is not None and memory.total(batch_size) > target:
        text += f"; more than {target:g} GB even so: a smaller encoder, input size or patch is needed"
    return plans, text
