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
from nnunetv2_guidino.files import write_json
from nnunetv2_guidino.nnunet.descriptions import errors_in, read_configurations, read_dataset_json
from nnunetv2_guidino.nnunet.folders import preprocessed_folder
from nnunetv2_guidino.nnunet.plans import derive_plans, guide_of, guide_settings, read_plans
from nnunetv2_guidino.tools.plan.changes import change
from nnunetv2_guidino.tools.plan.differences import differences
from nnunetv2_guidino.tools.plan.encoder_name import absolute_encoder
from nnunetv2_guidino.tools.plan.network_options import Network
from nnunetv2_guidino.tools.plan.replace_network import put_gate, put_network, with_heirs
from nnunetv2_guidino.tools.plan.trainable import check_gate, check_trainable

RESERVED = ("dataset", "dataset_fingerprint", "splits_final")  # nnU-Net's own files beside the plans
LONGEST_NAME = 100  # nnU-Net makes it a part of a folder's name


@dataclass(frozen=True)
class Planned:
    """What `plan` wrote.

    Args:
        file: The new plans.
        source: Those they were derived from.
        plans: What is in the new ones.
        differences: One line for each value that differs from the source.
        choices: What was planned for another network, and why, in lines; none where it is the source's.
        memory: What a training needs, in words.
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
        plans: Name of those to derive from.
        configuration: Whose memory to estimate, and whose batch size to lower.
        settings: Of the guide, by key; "lora.rank" is a key of the section "lora".
        changes: Other values in the plans by path, such as "configurations.2d.batch_size".
        gpu_memory_target: In GB; the batch size is lowered, never below 2, until the estimate fits.
        network: For every configuration in whose dimensions it lives; the others are left out, and the guide acts where
            it takes one. None: the source's.

    Raises:
        GuidinoError: For a value that is wrong, or that no training could be done with; nothing is written then.
    """
    _check_name(output)
    if gpu_memory_target is not None:
        GIGABYTES.check("--gpu_memory_target_in_gb", gpu_memory_target)
    folder = preprocessed_folder(dataset)
    source_file, file = folder / f"{plans}.json", folder / f"{output}.json"
    source = read_configurations(source_file)
    if configuration not in source["configurations"]:
        known = ", ".join(source["configurations"])
        raise GuidinoError(f"-c {configuration}: the plans have no such configuration; there are {known}")
    guide_of(source, source_file)  # what is wrong in the source is said of the source
    derived = derive_plans(source, output, _section(source, dict(settings or {})))
    dataset_json = read_dataset_json(folder / "dataset.json", "labels", "channel_names")
    changes, choices = dict(changes or {}), list[str]()
    # A network is planned for the patch as it will be, and may be changed itself afterwards.
    of_network = [path for path in changes if network is not None and ".architecture." in path]
    changed = {change(derived, path, value) for path, value in changes.items() if path not in of_network}
    if network is not None:
        choices = put_network(derived, source_file, configuration, network, dataset_json, given=changes)
        choices.append(put_gate(derived, source_file, configuration, dataset_json, given=settings or {}))
        changed |= {*derived["configurations"]}
    changed |= {change(derived, path, changes[path]) for path in of_network}
    for name in with_heirs(derived, changed):
        check_trainable(derived, source_file, name, dataset_json)
    check_gate(derived, source_file, configuration, dataset_json)
    with errors_in(source_file, "has no network whose memory can be estimated"):
        memory = estimated_memory(derived, configuration, dataset_json, gpu_memory_target)
    if file.exists():  # results that were made with it would no longer be what they say
        raise GuidinoError(f"{file} exists already; give -o another name")
    write_json(file, derived)
    return Planned(file, source_file, derived, list(differences(source, derived)), choices, memory)


def guide_section(path: Path) -> dict[str, Any]:
    """The guide section of a plans file or of a trained model's folder, with all its values.

    Raises:
        GuidinoError: If there is no such file, or it describes no guide.
    """
    if path.is_dir():
        if not (path / "plans.json").is_file():
            raise GuidinoError(f"{path} has no plans.json; expected a trained model's folder, or a plans file")
        path = path / "plans.json"
    return guide_of(read_plans(path), path).to_plans()


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or "__" in name:
        raise GuidinoError(f"-o {name}: expected letters, digits, - and single _: it names files and folders")
    if name in RESERVED or name.endswith(".json") or len(name) > LONGEST_NAME:
        raise GuidinoError(
            f"-o {name}: expected a name of plans, without .json, not longer than {LONGEST_NAME} letters, and none of "
            f"{', '.join(RESERVED)}, which are nnU-Net's"
        )


def _section(source: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The complete guide section: the source's, changed by what is given."""
    adapters = [key for key in given if key.startswith("lora.")]
    if "lora" in given and given["lora"] is None and adapters:
        raise GuidinoError(f"lora is switched off, but {adapters[0]} is set: leave one of the two out")
    section = guide_settings(source, given)
    if "encoder" in given or "encoder" not in source.get(PLANS_KEY, {}):
        section["encoder"] = absolute_encoder(section["encoder"])
    return section


def estimated_memory(
    plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any], target: float | None = None
) -> str:
    """What a training needs, in words; with a target in GB, the batch size is lowered in `plans` to fit."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunetv2_guidino.tools.plan.memory import estimate

    memory = estimate(plans, configuration, dataset_json)
    if memory is None:
        reason = "the encoder is not on this machine, or the network does not count itself"
        if target is not None:
            raise GuidinoError(f"the memory cannot be estimated: {reason}")
        return f"no estimate of the memory: {reason}"
    planned = int(PlansManager(plans).get_configuration(configuration).batch_size)
    batch_size = planned if target is None else memory.largest_batch(target, planned)
    if batch_size != planned:
        plans["configurations"][configuration]["batch_size"] = batch_size
    text = memory.describe(batch_size)
    if target is not None and memory.total(batch_size) > target:
        text += f"; more than {target:g} GB even so: a smaller encoder, input size or patch is needed"
    return text
