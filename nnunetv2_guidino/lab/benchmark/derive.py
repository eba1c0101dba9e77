"""Make the plans of a method with a guide or a network of its own as `guidino plan` does, and compare existing ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.benchmark.matrix import Matrix, Method
from nnunetv2_guidino.nnunet.plans import MISSING, differences, guide_settings
from nnunetv2_guidino.nnunet.plans_file import PlansFile
from nnunetv2_guidino.tools.plan.network_options import Network


@dataclass(frozen=True)
class Preparation:
    """A step that makes something that is missing: the command, and the function that does the same."""

    command: list[str]
    make: Callable[[], None]
    file: Path | None = None  # the file that the step makes and refuses to replace


def derivation(matrix: Matrix, method: Method, folder: Path) -> Preparation:
    """Return the step that derives a method's plans from its base.

    Args:
        matrix: Matrix of the method.
        method: A method with a guide or a network of its own.
        folder: Folder of the data set in nnUNet_preprocessed.

    Raises:
        GuidinoError: If the network does not support the dimensions of one of the matrix's configurations.
    """
    base, settings, network = str(method.base), _settings(matrix, method), _network(matrix, method)
    command = ["guidino", "plan", "-d", folder.name, "-p", base, "-o", method.plans, "-c", matrix.configurations[0]]
    values = dict(settings)
    if network is not None:
        if (folder / f"{base}.json").is_file():
            _check_dimensions(matrix, method, network, PlansFile.read(folder / f"{base}.json"))
        command += ["--architecture", network.name]
        command += ["--width", network.width] if network.width != "paper" else []
        values |= {f"architecture.{key}": value for key, value in network.settings.items()}
    for key, value in values.items():
        command += ["--set", f"{key}={json.dumps(value, ensure_ascii=False)}"]

    def make() -> None:
        from nnunetv2_guidino.tools.plan.derive_plans import plan

        try:
            plan(folder.name, method.plans, base, matrix.configurations[0], settings, network=network)
        except GuidinoError as error:
            raise GuidinoError(f"{matrix.file}: the plans of {method.name} cannot be made: {error}") from error

    return Preparation(command, make, folder / f"{method.plans}.json")


def is_derived(matrix: Matrix, method: Method, folder: Path) -> bool:
    """Check whether a method's plans exist; arguments are those of `derivation`.

    Raises:
        GuidinoError: If the existing plans have another guide or network than the matrix.
    """
    file = folder / f"{method.plans}.json"
    if not file.is_file():
        return False
    source, existing = PlansFile.read(folder / f"{method.base}.json"), PlansFile.read(file)
    for wanted, found in _sections(matrix, method, source, existing):
        for key, *values in differences(wanted, found):
            now, then = (None if value is MISSING else value for value in values)
            raise GuidinoError(
                f"{file} was made with {key} {then!r}; {matrix.file} now has {now!r} for {method.name}. Give that "
                "method another name, or remove the file and what was trained with it"
            )
    return True


Sections = tuple[dict[str, Any], dict[str, Any]]  # as the matrix wants it, and as it is in the existing plans


def _sections(matrix: Matrix, method: Method, source: PlansFile, existing: PlansFile) -> Iterator[Sections]:
    from nnunetv2_guidino.tools.plan.replace_network import planned_section

    settings, network = _settings(matrix, method), _network(matrix, method)
    wanted, guide = guide_settings(source.plans, settings), guide_settings(existing.plans, {})
    wanted["encoder"] = _absolute(wanted["encoder"])
    if network is not None and "gate_at" not in settings:
        wanted["gate_at"] = guide["gate_at"]  # it follows the network
    yield wanted, guide
    if network is None:
        return
    for name in matrix.configurations:
        planned, found = (plans.configuration(name).configuration for plans in (source, existing))
        target = lists.ARCHITECTURES[network.name].target.replace(":", ".")
        yield {"architecture": target}, {"architecture": found["architecture"]["network_class_name"]}
        kwargs = found["architecture"]["arch_kwargs"]
        if "encoder_config" in kwargs:  # both follow from the guide's encoder, whose folder may be gone by now
            follows = {key: kwargs[key] for key in ("encoder_config", "pretrained")}
            network = replace(network, settings={**follows, **network.settings})
        section = planned_section(network, {**planned, "patch_size": found["patch_size"]}, guide)
        yield {"architecture": section["arch_kwargs"]}, {"architecture": kwargs}


def _check_dimensions(matrix: Matrix, method: Method, network: Network, base: PlansFile) -> None:
    architecture = lists.ARCHITECTURES[network.name].load()
    for name in matrix.configurations:
        count = len(base.configuration(name).patch_size)
        if count not in architecture.dimensions:
            raise GuidinoError(
                f"{matrix.file}: configurations has {name}, which has {count} dimensions; {network.name} of "
                f"{method.name} is an architecture for {architecture.lives_in()}"
            )


def _settings(matrix: Matrix, method: Method) -> dict[str, Any]:
    """Return the guide's settings with the absolute path of its encoder, since trainings start elsewhere."""
    settings = dict(method.guide or {})
    if isinstance(settings.get("encoder"), str):
        settings["encoder"] = _absolute(settings["encoder"], matrix.file.parent)
    return settings


def _network(matrix: Matrix, method: Method) -> Network | None:
    """Return the network with the absolute path of its pretrained weights."""
    network = method.network
    if network is None or not isinstance(network.settings.get("pretrained"), str):
        return network
    pretrained = _absolute(network.settings["pretrained"], matrix.file.parent)
    return replace(network, settings={**network.settings, "pretrained": pretrained})


def _absolute(name: str, *places: Path) -> str:
    """Return the absolute path of a folder, which may be relative to one of the places; another name stays."""
    for folder in (*(place / name for place in places), Path(name).expanduser()):
        if folder.is_dir():
            return str(folder.absolute())
    return name
