"""Read the matrix of a benchmark from a YAML file (docs/reference/benchmark_matrix.md), and list its trainings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from nnunetv2_guidino.checks import Kind
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.benchmark.job import Job
from nnunetv2_guidino.lab.benchmark.settings import (
    COUNT,
    COUNT_OR_ALL,
    FOLD,
    NAME,
    NAMES,
    SEED,
    TEXT,
    Section,
    read_yaml,
)
from nnunetv2_guidino.nnunet.plans import guide_settings
from nnunetv2_guidino.tools.plan.network_options import Network
from nnunetv2_guidino.training.naming import trainer_class

KEYS = (
    "title", "datasets", "configurations", "methods", "plans", "trainers", "folds", "seeds", "cases", "epochs",
    "iterations",
)  # fmt: skip
PLANS_KEYS = ("plans", "guide", "architecture", "width")  # keys of a method that describe its plans
PRESETS = Path(__file__).parent / "presets"
GUIDED = "nnUNetTrainerGuiDINO"
PLANS_NAME = Kind(
    "the name of plans, such as nnUNetPlans",
    lambda value: isinstance(value, str) and re.fullmatch(r"(?!.*__)[A-Za-z0-9][\w.-]*", value),
)
METHOD_NAME = re.compile(r"[A-Za-z0-9][\w .+-]*")


@dataclass(frozen=True)
class Method:
    """A method to compare: plans, perhaps with a guide or a network of their own, and a trainer.

    Args:
        name: Name in the matrix.
        plans: Name of the plans with which it is trained.
        trainer: Name of the trainer without length, cases and seed.
        base: Name of the plans from which the benchmark derives `plans`; None: it derives none.
        guide: Settings of the guide in the plans, by key.
        network: Network in the plans; None: the network of `base`.
    """

    name: str
    plans: str
    trainer: str
    base: str | None = None
    guide: dict[str, Any] | None = None
    network: Network | None = None


@dataclass(frozen=True)
class Matrix:
    """A checked matrix; the other methods are compared with the first one."""

    file: Path
    title: str
    datasets: list[str]
    configurations: list[str]
    methods: list[Method]
    folds: list[str]
    seeds: list[int | None]
    cases: list[int | None]
    epochs: int | None
    iterations: int | None

    def jobs(self, names: dict[str, str], results: Path, device: str) -> list[Job]:
        """Return all trainings; the methods of a seed and fold follow each other, so that comparisons are whole early.

        Args:
            names: nnU-Net's full name of each data set.
            results: The folder nnUNet_results.
            device: Value of nnU-Net's -device.

        Raises:
            GuidinoError: If two of them are the same training.
        """
        jobs: dict[Path, Job] = {}
        order = product(self.datasets, self.configurations, self.cases, self.seeds, self.folds, self.methods)
        for dataset, configuration, cases, seed, fold, method in order:
            trainer = self.trainer(method, cases, seed)
            where = (names[dataset], configuration, method.name, method.plans, trainer)
            job = Job(*where, fold, seed, cases, results, device)
            if other := jobs.get(job.folder):
                raise GuidinoError(
                    f"{self.file}: {other.label} and {job.label} are the same training ({trainer} with "
                    f"{method.plans}); leave one of them out"
                )
            jobs[job.folder] = job
        return list(jobs.values())

    def trainer(self, method: Method, cases: int | None, seed: int | None) -> str:
        """Return the full name of a method's trainer."""
        parts = {"epochs": self.epochs, "iterations": self.iterations, "cases": cases}
        name = method.trainer + "".join(f"_{value}{part}" for part, value in parts.items() if value is not None)
        return name if seed is None else f"{name}_seed{seed}"


def find_matrix(name: str | Path) -> Path:
    """Return a YAML file, or that of a preset by its name; raise GuidinoError, which names the presets, without one."""
    if Path(name).is_file():
        return Path(name)
    if str(name) in presets():
        return presets()[str(name)]
    raise GuidinoError(f"{name} does not exist, and is no preset; there are {', '.join(presets())}")


def presets() -> dict[str, Path]:
    """Return the matrices that come with the package, by name."""
    return {preset.stem: preset for preset in sorted(PRESETS.glob("*.yaml"))}


def read_matrix(file: Path, datasets: list[str] | None = None) -> Matrix:
    """Read and check a matrix.

    Args:
        file: The YAML file.
        datasets: Data sets that replace those in the file; a preset names none.

    Raises:
        GuidinoError: If a key is unknown or a value is wrong. The error names file and key.
    """
    section = read_yaml(file)
    section.check_keys(KEYS)
    if not datasets and "datasets" not in section.content:
        raise GuidinoError(f"{file}: datasets is missing; name them there, or with -d")
    matrix = Matrix(
        file=file,
        title=section.value("title", TEXT, file.stem),
        datasets=datasets or _names(section, "datasets", []),
        configurations=_names(section, "configurations", ["2d"]),
        methods=_methods(section),
        folds=[str(fold) for fold in section.values("folds", FOLD, [0])],
        seeds=[None if seed == "none" else seed for seed in section.values("seeds", SEED, [0])],
        cases=[None if count == "all" else count for count in section.values("cases", COUNT_OR_ALL, ["all"])],
        epochs=section.value("epochs", COUNT),
        iterations=section.value("iterations", COUNT),
    )
    for method, cases, seed in product(matrix.methods, matrix.cases, matrix.seeds):
        _check_trainer(matrix, method, matrix.trainer(method, cases, seed))
    return matrix


def _names(section: Section, key: str, default: list[str]) -> list[str]:
    return [str(name) for name in section.values(key, NAMES, default)]


def _methods(section: Section) -> list[Method]:
    """Return the methods under `methods`, or each of `plans` with each of `trainers`."""
    if "methods" in section.content:
        for key in ("plans", "trainers"):
            if key in section.content:
                raise GuidinoError(f"{section.file}: methods and {key} stand beside each other; leave one of them out")
        methods = _each(section.section("methods"), (*PLANS_KEYS, "trainer"))
    else:
        trainers = _names(section, "trainers", [GUIDED])
        several = len(trainers) > 1  # only then a method's name says which trainer it is
        methods = [
            replace(plans, name=f"{plans.name} {trainer.removeprefix('nnUNetTrainer')}", trainer=trainer)
            if several
            else replace(plans, trainer=trainer)
            for plans, trainer in product(_plans(section), trainers)
        ]
    if not methods:
        raise GuidinoError(f"{section.file}: no method is named")
    return methods


def _plans(section: Section) -> list[Method]:
    if isinstance(section.content.get("plans"), dict):
        return _each(section.section("plans"), PLANS_KEYS)
    return [Method(name, name, GUIDED) for name in _names(section, "plans", ["nnUNetPlans"])]


def _each(methods: Section, keys: tuple[str, ...]) -> list[Method]:
    return [_method(methods, name, keys) for name in methods.content]


def _method(methods: Section, name: str, keys: tuple[str, ...]) -> Method:
    if not METHOD_NAME.fullmatch(name):
        raise GuidinoError(f"{methods.where(name)}: expected a name of letters, digits, space and .+-_")
    section = methods.section(name)
    section.check_keys(keys)
    trainer, plans = section.value("trainer", NAME, GUIDED), section.value("plans", PLANS_NAME, "nnUNetPlans")
    network, guide = _network(section), None
    if "guide" in section.content:
        guide = section.section("guide").content
        with section.errors_at("guide"):
            guide_settings({}, guide)
    if guide is None and network is None:
        return Method(name, plans, trainer)
    derived = f"{plans}_{re.sub('[^A-Za-z0-9]+', '-', name).strip('-')}"
    return Method(name, derived, trainer, plans, guide, network)


def _network(section: Section) -> Network | None:
    """Return a method's architecture, which the matrix gives as a name, or as a name with settings."""
    if "architecture" not in section.content:
        if "width" in section.content:
            raise GuidinoError(f"{section.where('width')} is for an architecture, which is not named")
        return None
    given = section.content["architecture"]
    settings = section.section("architecture").content if isinstance(given, Mapping) else {"name": given}
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise Kind("the name of one, or its name and its settings", str).error(section.where("architecture"), given)
    with section.errors_at("architecture"):
        return Network(name, section.value("width", TEXT, "paper"), settings)


def _check_trainer(matrix: Matrix, method: Method, name: str) -> None:
    where = f"{matrix.file}: the trainer of {method.name}, {method.trainer},"
    if not method.trainer.startswith(GUIDED):
        if name != method.trainer:
            raise GuidinoError(
                f"{where} is not of this package and takes neither seeds nor lengths nor cases: take "
                "nnUNetTrainerGuiDINOBaseline, or say `seeds: none` and leave epochs, iterations and cases out"
            )
        return
    if "_" in method.trainer:
        raise GuidinoError(f"{where} names a length, cases or a seed; these are keys of their own in the matrix")
    if method.guide is not None and "Baseline" in method.trainer:
        raise GuidinoError(f"{where} has no guide, but settings of one are given; leave guide out")
    try:
        trainer_class(name)
    except GuidinoError as error:
        raise GuidinoError(f"{where} cannot be used: {error}") from error
