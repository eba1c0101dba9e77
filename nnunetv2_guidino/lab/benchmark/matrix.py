"""The matrix of a benchmark, read from a YAML file (docs/reference/benchmark_matrix.md), and the jobs it stands for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.benchmark.job import Job
from nnunetv2_guidino.lab.benchmark.settings import Section, read_yaml
from nnunetv2_guidino.nnunet.plans import guide_settings
from nnunetv2_guidino.tools.plan.network_options import Network
from nnunetv2_guidino.training.naming import trainer_class

KEYS = (
    "title", "datasets", "configurations", "methods", "plans", "trainers", "folds", "seeds", "cases", "epochs",
    "iterations",
)  # fmt: skip
OF_PLANS = ("plans", "guide", "architecture", "width")  # keys of a method that say with which plans it is trained
PRESETS = Path(__file__).parent / "presets"
GUIDED = "nnUNetTrainerGuiDINO"
PLANS_NAME = re.compile(r"(?!.*__)[A-Za-z0-9][\w.-]*")
METHOD_NAME = re.compile(r"[A-Za-z0-9][\w .+-]*")


@dataclass(frozen=True)
class Method:
    """What is compared: plans, perhaps with a guide or a network of their own, and a trainer.

    Args:
        name: What the matrix calls it.
        plans: Name of the plans it is trained with.
        trainer: Without length, cases and seed.
        base: Name of the plans from which `plans` are derived; None: `plans` are somebody else's.
        guide: Settings of the guide in them, by key.
        network: The network in them; None: the one of `base`.
    """

    name: str
    plans: str
    trainer: str
    base: str | None = None
    guide: dict[str, Any] | None = None
    network: Network | None = None


@dataclass(frozen=True)
class Matrix:
    """A checked matrix; the first method is what the others are compared with."""

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
        """All trainings; the methods of one seed and fold follow each other, so that comparisons are whole early.

        Args:
            names: nnU-Net's whole name of each data set.
            results: nnUNet_results.
            device: As nnU-Net's -device takes it.

        Raises:
            GuidinoError: If two of them are one and the same training.
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
        """The whole name of a method's trainer."""
        parts = {"epochs": self.epochs, "iterations": self.iterations, "cases": cases}
        name = method.trainer + "".join(f"_{value}{part}" for part, value in parts.items() if value is not None)
        return name if seed is None else f"{name}_seed{seed}"


def find_matrix(name: str | Path) -> Path:
    """A YAML file, or that of a preset by its name; raises GuidinoError, naming the presets, if there is neither."""
    if Path(name).is_file():
        return Path(name)
    if str(name) in presets():
        return presets()[str(name)]
    raise GuidinoError(f"{name} does not exist, and is no preset; there are {', '.join(presets())}")


def presets() -> dict[str, Path]:
    """The matrices that come with the package, by name."""
    return {preset.stem: preset for preset in sorted(PRESETS.glob("*.yaml"))}


def read_matrix(file: Path, datasets: list[str] | None = None) -> Matrix:
    """Read and check a matrix.

    Args:
        file: The YAML file.
        datasets: In place of those in the file; a preset names none.

    Raises:
        GuidinoError: For an unknown key or a wrong value, naming file and key.
    """
    section = read_yaml(file)
    section.refuse_unknown(KEYS)
    if not datasets and "datasets" not in section.content:
        raise GuidinoError(f"{file}: datasets is missing; name them there, or with -d")
    matrix = Matrix(
        file=file,
        title=section.text("title", file.stem),
        datasets=datasets or section.texts("datasets", []),
        configurations=section.texts("configurations", ["2d"]),
        methods=_methods(section),
        folds=[str(fold) for fold in section.entries("folds", [0], 0, "all")],
        seeds=[None if seed == "none" else seed for seed in section.entries("seeds", [0], 0, "none")],
        cases=[None if count == "all" else count for count in section.entries("cases", ["all"], 1, "all")],
        epochs=section.whole("epochs"),
        iterations=section.whole("iterations"),
    )
    for method, cases, seed in product(matrix.methods, matrix.cases, matrix.seeds):
        _check_trainer(matrix, method, matrix.trainer(method, cases, seed))
    return matrix


def _methods(section: Section) -> list[Method]:
    """Those under methods, or each of plans with each of trainers."""
    if "methods" in section.content:
        for key in ("plans", "trainers"):
            if key in section.content:
                raise GuidinoError(f"{section.file}: methods and {key} stand beside each other; leave one of them out")
        several = section.section("methods")
        methods = [_method(several, name, (*OF_PLANS, "trainer")) for name in several.content]
    else:
        methods = [
            replace(plans, name=name, trainer=trainer)
            for plans, (trainer, name) in product(_plans(section), _named_trainers(section))
            for name in [f"{plans.name} {name}".strip()]
        ]
    if not methods:
        raise GuidinoError(f"{section.file}: no method is named")
    return methods


def _plans(section: Section) -> list[Method]:
    if not isinstance(section.content.get("plans"), dict):
        return [Method(name, name, GUIDED) for name in section.texts("plans", ["nnUNetPlans"])]
    several = section.section("plans")
    return [_method(several, name, OF_PLANS) for name in several.content]


def _named_trainers(section: Section) -> list[tuple[str, str]]:
    """Each trainer with its part of a method's name: nothing where there is one only."""
    trainers = section.texts("trainers", [GUIDED])
    return [(trainer, "" if len(trainers) == 1 else trainer.removeprefix("nnUNetTrainer")) for trainer in trainers]


def _method(several: Section, name: str, keys: tuple[str, ...]) -> Method:
    if not METHOD_NAME.fullmatch(name):
        raise GuidinoError(f"{several.file}: {several.path}{name}: expected a name of letters, digits, space and .+-_")
    section = several.section(name)
    section.refuse_unknown(keys)
    trainer, plans = section.text("trainer", GUIDED), section.text("plans", "nnUNetPlans")
    if not PLANS_NAME.fullmatch(plans):
        raise section.error("plans", "the name of plans, such as nnUNetPlans")
    network, guide = _network(section), None
    if "guide" in section.content:
        guide = section.section("guide").content
        with _said_of(section, "guide"):
            guide_settings({}, guide)
    if guide is None and network is None:
        return Method(name, plans, trainer)
    derived = f"{plans}_{re.sub('[^A-Za-z0-9]+', '-', name).strip('-')}"
    return Method(name, derived, trainer, plans, guide, network)


def _network(section: Section) -> Network | None:
    """A method's architecture: its name, or the name with settings beside it."""
    if "architecture" not in section.content:
        if "width" in section.content:
            raise GuidinoError(f"{section.file}: {section.path}width is for an architecture, which is not named")
        return None
    settings: dict[str, Any] = {}
    name = section.content["architecture"]
    if isinstance(name, Mapping):
        settings = section.section("architecture").content
        name = settings.pop("name", None)
    if not isinstance(name, str):
        raise section.error("architecture", "the name of one, or its name and its settings")
    with _said_of(section, "architecture"):
        return Network(name, section.text("width", "paper"), settings)


@contextmanager
def _said_of(section: Section, key: str) -> Iterator[None]:
    try:
        yield
    except GuidinoError as error:
        raise GuidinoError(f"{section.file}: {section.path}{key}: {error}") from error


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
