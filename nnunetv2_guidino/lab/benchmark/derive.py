"""The plans of a method with a guide or a network of its own: made as `guidino plan` does, and compared if there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.benchmark.matrix import Matrix, Method
from nnunetv2_guidino.nnunet.descriptions import configuration_of
from nnunetv2_guidino.nnunet.plans import guide_settings, read_plans
from nnunetv2_guidino.tools.plan.network_options import Network


@dataclass(frozen=True)
class Preparation:
    """Something that is missing: the command that makes it, and how it is made here."""

    command: list[str]
    make: Callable[[], None]
    file: Path | None = None  # which it makes, and refuses to make again


def derivation(matrix: Matrix, method: Method, folder: Path) -> Preparation:
    """How a method's plans are derived from its base.

    Args:
        matrix: Of the method.
        method: With a guide or a network of its own.
        folder: The data set's in nnUNet_preprocessed.

    Raises:
        GuidinoError: If the network does not live in one of the matrix's configurations.
    """
    assert method.base is not None
    settings, network = _given(matrix, method), _network(matrix, method)
    if network is not None and (folder / f"{method.base}.json").is_file():
        _check_dimensions(matrix, method, network, folder)
    command = ["guidino", "plan", "-d", folder.name, "-p", method.base, "-o", method.plans]
    command += ["-c", matrix.configurations[0]]
    values = dict(settings)
    if network is not None:
        command += ["--architecture", network.name]
        command += ["--width", network.width] if network.width != "paper" else []
        values |= {f"architecture.{key}": value for key, value in network.settings.items()}
    for key, value in values.items():
        command += ["--set", f"{key}={json.dumps(value, ensure_ascii=False)}"]

    def make() -> None:
        from nnunetv2_guidino.tools.plan.derive_plans import plan

        try:
            plan(folder.name, method.plans, str(method.base), matrix.configurations[0], settings, network=network)
        except GuidinoError as error:
            raise GuidinoError(f"{matrix.file}: the plans of {method.name} cannot be made: {error}") from error

    return Preparation(command, make, folder / f"{method.plans}.json")


def is_derived(matrix: Matrix, method: Method, folder: Path) -> bool:
    """Whether a method's plans are there; arguments are those of `derivation`.

    Raises:
        GuidinoError: If they have another guide or network than the matrix says.
    """
    file = folder / f"{method.plans}.json"
    if not file.is_file():
        return False
    source, there = read_plans(folder / f"{method.base}.json"), read_plans(file)
    guides, networks = _guides(matrix, method, source, there), _networks(matrix, method, folder, source, there)
    for key, wanted, found in chain(guides, networks):
        if wanted != found:
            raise GuidinoError(
                f"{file} was made with {key} {found!r}; {matrix.file} now has {wanted!r} for {method.name}. Give that "
                "method another name, or remove the file and what was trained with it"
            )
    return True


Pair = tuple[str, Any, Any]  # a key, its value as the matrix wants it, and that which is there


def _guides(matrix: Matrix, method: Method, source: dict[str, Any], there: dict[str, Any]) -> Iterator[Pair]:
    given = _given(matrix, method)
    wanted, found = guide_settings(source, given), guide_settings(there, {})
    wanted["encoder"] = _whole_path(wanted["encoder"])
    for key in dict.fromkeys([*wanted, *found]):
        if key == "gate_at" and method.network is not None and key not in given:
            continue  # a network has its own
        yield key, wanted.get(key), found.get(key)


def _networks(
    matrix: Matrix, method: Method, folder: Path, source: dict[str, Any], there: dict[str, Any]
) -> Iterator[Pair]:
    from nnunetv2_guidino.tools.plan.replace_network import planned_section

    network = _network(matrix, method)
    if network is None:
        return
    for name in matrix.configurations:
        planned = configuration_of(source, folder / f"{method.base}.json", name)[1].configuration
        made = configuration_of(there, folder / f"{method.plans}.json", name)[1].configuration
        found = made["architecture"]["arch_kwargs"]
        target = lists.ARCHITECTURES[network.name].target.replace(":", ".")
        yield "architecture", target, made["architecture"]["network_class_name"]  # another has other settings
        if "encoder_config" in found:  # both follow from the guide's encoder, whose folder may be gone by now
            follows = {key: found[key] for key in ("encoder_config", "pretrained")}
            network = replace(network, settings={**follows, **network.settings})
        section = planned_section(network, {**planned, "patch_size": made["patch_size"]}, guide_settings(there, {}))
        wanted = section["arch_kwargs"]
        for key in dict.fromkeys([*wanted, *found]):
            yield f"architecture.{key}", wanted.get(key), found.get(key)


def _check_dimensions(matrix: Matrix, method: Method, network: Network, folder: Path) -> None:
    architecture = lists.ARCHITECTURES[network.name].load()
    file = folder / f"{method.base}.json"
    for name in matrix.configurations:
        count = len(configuration_of(read_plans(file), file, name)[1].patch_size)
        if count not in architecture.dimensions:
            raise GuidinoError(
                f"{matrix.file}: configurations has {name}, which has {count} dimensions; {network.name} of "
                f"{method.name} is an architecture for {architecture.lives_in()}"
            )


def _given(matrix: Matrix, method: Method) -> dict[str, Any]:
    """The guide's settings as the matrix gives them, its encoder as trainings find it."""
    given = dict(method.guide or {})
    return given | ({"encoder": _found_from(matrix, given["encoder"])} if "encoder" in given else {})


def _network(matrix: Matrix, method: Method) -> Network | None:
    """The network as the matrix gives it, what it starts from as trainings find it."""
    network = method.network
    if network is None or "pretrained" not in network.settings:
        return network
    pretrained = _found_from(matrix, network.settings["pretrained"])
    return replace(network, settings={**network.settings, "pretrained": pretrained})


def _found_from(matrix: Matrix, name: Any) -> Any:
    """The whole path of a folder, which may be given relative to the matrix: trainings start elsewhere."""
    return _whole_path(name, matrix.file.parent) if isinstance(name, str) else name


def _whole_path(name: str, *places: Path) -> str:
    for folder in (*(place / name for place in places), Path(name).expanduser()):
        if folder.is_dir():
            return str(folder.absolute())
    return name
