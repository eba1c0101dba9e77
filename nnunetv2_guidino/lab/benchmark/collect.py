"""Evaluate and compare the finished trainings, and write the report."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.benchmark.benchmark_report import Results, summarize, write_report
from nnunetv2_guidino.lab.benchmark.guides import (
    KeptGuide,
    case_rows,
    guides_and_segmentations,
    keep_guides,
    training_rows,
)
from nnunetv2_guidino.lab.benchmark.job import Job
from nnunetv2_guidino.lab.benchmark.local import Log
from nnunetv2_guidino.lab.benchmark.matrix import Matrix
from nnunetv2_guidino.lab.benchmark.state import is_done, seconds_of, state_of
from nnunetv2_guidino.lab.benchmark.worst_cases import worst_cases
from nnunetv2_guidino.tools.evaluation.comparison import compare
from nnunetv2_guidino.tools.evaluation.evaluation import evaluate_model

SeedAndFold = tuple[int | None, str]
Places = dict[str, dict[SeedAndFold, Job]]  # each method's trainings
_LOGGED = re.compile(r": (Epoch(?! time)|train_loss|val_loss|Pseudo dice|Guide Dice) (.*?)\s*$")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?|nan")


class Cell(NamedTuple):
    """A data set, configuration and number of training cases, on which methods are compared."""

    dataset: str
    configuration: str
    cases: int | None  # None: all training cases of the fold

    @property
    def name(self) -> str:
        """The name for notes and folders."""
        return " ".join([*self[:2], *([f"{self.cases} cases"] if self.cases else [])])

    @property
    def labels(self) -> dict[str, object]:
        """The columns that identify it in tables."""
        return {"dataset": self.dataset, "configuration": self.configuration, "training_cases": self.cases or "all"}


class Compared(NamedTuple):
    """The tables of one cell, with the columns that identify it."""

    scores: pd.DataFrame
    comparison: pd.DataFrame
    differences: pd.DataFrame
    beside: pd.DataFrame  # the result of guides_and_segmentations


def collect(matrix: Matrix, jobs: Sequence[Job], output: Path, log: Log) -> Path | None:
    """Write the tables and report.html of the finished trainings; return the report's path, or None without any.

    The report compares methods on the folds and seeds that all of them have finished, and notes what it leaves out. The
    guides of finished trainings are scored alone, on the trainings' device, unless earlier scores are up to date.
    """
    done = [job for job in jobs if is_done(job.folder)]
    if not done:
        return None
    notes: list[str] = []
    guides = keep_guides(done, output, log, notes)
    compared: list[Compared] = []
    worst: list[pd.DataFrame] = []
    pictures: dict[str, list[tuple[str, bytes]]] = {}
    for cell in dict.fromkeys(Cell(job.dataset, job.configuration, job.cases) for job in jobs):
        wanted = [job for job in jobs if cell == (job.dataset, job.configuration, job.cases)]
        try:
            places = _done_places(wanted)
            shared = _shared_places(cell, wanted, places, notes)
            if not shared:
                continue
            compared.append(_compare(cell, places, shared, guides, output))
            if cell.cases == most_cases(jobs, cell):
                table, pictures[cell.name] = worst_cases(compared[-1].scores, places, guides)
                worst.append(_labelled(table, cell.labels))
        except GuidinoError as error:  # the report shows the other cells
            notes.append(f"{cell.name}: {error}")
    runs = _runs(jobs)
    guide_table = _of_each(guides, lambda guide: training_rows(guide.entries))
    scores, comparison, differences, beside = (
        _joined([getattr(of_cell, name) for of_cell in compared]) for name in Compared._fields
    )
    results = Results(
        summary=pd.DataFrame() if comparison.empty else summarize(comparison, beside, guide_table, runs),
        runs=runs,
        scores=scores,
        comparison=comparison,
        differences=differences,
        guides=guide_table,
        guide_cases=_of_each(guides, lambda guide: case_rows(guide.entries)),
        worst_cases=_joined(worst),
        curves=_joined([_labelled(training_curve(job), _identity(job)) for job in done]),
    )
    for note in notes:
        log(f"note: {note}")
    return write_report(output, matrix.title, results, pictures, notes)


def _done_places(jobs: Sequence[Job]) -> Places:
    places: Places = {}
    for job in jobs:
        if is_done(job.folder):
            places.setdefault(job.method, {})[job.seed, job.fold] = job
    return places


def _shared_places(cell: Cell, jobs: Sequence[Job], places: Places, notes: list[str]) -> list[SeedAndFold]:
    """Return the seeds and folds on which the methods are compared, and note what is left out."""
    shared = common_places([set(of_method) for of_method in places.values()])
    if places and not shared:
        notes.append(f"{cell.name}: these methods have no finished fold and seed in common: {', '.join(places)}")
    if absent := [method for method in dict.fromkeys(job.method for job in jobs) if method not in places]:
        notes.append(f"{cell.name}: no training has finished of {', '.join(absent)}")
    left_out = [job for of_method in places.values() for place, job in of_method.items() if place not in shared]
    if shared and left_out:
        names = ", ".join(job.label.removeprefix(f"{job.dataset} {job.configuration} ") for job in left_out)
        notes.append(f"{cell.name}: left out, because not every method has finished this fold and seed: {names}")
    return shared


def common_places(of_methods: Sequence[set[SeedAndFold]]) -> list[SeedAndFold]:
    """Return the largest set of seeds and folds that all methods have, with the same seeds in each fold."""
    shared = set.intersection(*of_methods) if of_methods else set()
    seeds, folds = {seed for seed, _ in shared}, {fold for _, fold in shared}
    whole_seeds = {seed for seed in seeds if all((seed, fold) in shared for fold in folds)}
    whole_folds = {fold for fold in folds if all((seed, fold) in shared for seed in seeds)}
    grids: list[list[SeedAndFold]] = [[(seed, fold) for seed in whole_seeds for fold in folds]]
    grids += [[(seed, fold) for seed in seeds for fold in whole_folds]]
    grids += [[place for place in shared if place[0] == seed] for seed in seeds]
    largest = max(len(grid) for grid in grids)
    return sorted(next(grid for grid in grids if len(grid) == largest), key=str)


def most_cases(jobs: Sequence[Job], cell: Cell) -> int | None:
    """Return the largest number of training cases with this data set and configuration; None is all of them."""
    counts = {job.cases for job in jobs if (job.dataset, job.configuration) == cell[:2]}
    return None if None in counts else max(count for count in counts if count)


def _compare(
    cell: Cell, places: Places, shared: Sequence[SeedAndFold], guides: Mapping[Job, KeptGuide], output: Path
) -> Compared:
    """Score and compare the methods in one cell."""
    folder = output / "evaluations" / cell.name.replace(" ", "_")
    runs: dict[str, list[Path]] = {}
    scores, of_guides = [], []
    for method, of_method in places.items():
        for seed in dict.fromkeys(seed for seed, _ in shared):
            folds = [fold for other, fold in shared if other == seed]
            target = folder / re.sub(r"[^\w.+-]+", "_", method) / f"seed{'' if seed is None else seed}"
            table = evaluate_model(of_method[seed, folds[0]].model_folder, target, folds=folds).table
            runs.setdefault(method, []).append(target)
            scores.append(_labelled(table, {"method": method, "seed": seed}))
        for place in shared:
            if guide := guides.get(of_method[place]):
                of_guides.append(case_rows(guide.entries).assign(method=method, run=str(place)))
    compared = compare(runs, folder / "comparison")
    tables = [_joined(scores), compared.table, compared.differences]
    tables.append(guides_and_segmentations(_joined(of_guides)) if of_guides else pd.DataFrame())
    return Compared(*(_labelled(table, cell.labels) for table in tables))


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    filled = [table for table in tables if not table.empty]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()


def _labelled(table: pd.DataFrame, labels: Mapping[str, object]) -> pd.DataFrame:
    return pd.concat([pd.DataFrame(dict(labels), index=table.index), table], axis=1)


def _of_each(guides: Mapping[Job, KeptGuide], rows: Callable[[KeptGuide], pd.DataFrame]) -> pd.DataFrame:
    return _joined([_labelled(rows(guide), _identity(job)) for job, guide in guides.items()])


def _runs(jobs: Sequence[Job]) -> pd.DataFrame:
    rows = [
        _identity(job) | {"state": state_of(job).value, "seconds": seconds_of(job.log), "folder": str(job.folder)}
        for job in jobs
    ]
    return pd.DataFrame(rows)


def _identity(job: Job) -> dict[str, object]:
    return {
        "dataset": job.dataset, "configuration": job.configuration, "training_cases": job.cases or "all",
        "method": job.method, "fold": job.fold, "seed": job.seed, "trainer": job.trainer, "plans": job.plans,
    }  # fmt: skip


def training_curve(job: Job) -> pd.DataFrame:
    """Return the losses and Dice of each epoch from nnU-Net's logs; the last log of an epoch counts."""
    epochs: dict[int, dict[str, object]] = {}
    for file in sorted(job.folder.glob("training_log_*.txt")):
        epoch: dict[str, object] = {}
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if not (found := _LOGGED.search(line)):
                continue
            numbers = [float(number) for number in _NUMBER.findall(re.sub(r"np\.float\d+", "", found[2]))]
            if found[1] == "Epoch" and len(numbers) == 1:
                epoch = epochs.setdefault(int(numbers[0]), {})
            elif numbers:
                epoch[found[1].lower().replace(" ", "_")] = sum(numbers) / len(numbers)
    return pd.DataFrame([{"epoch": number} | epochs[number] for number in sorted(epochs)])
