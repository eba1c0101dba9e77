"""What came out: evaluate and compare what is done, as CSV and a report in one file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nnunetv2_guidino.benchmark.job import Job
from nnunetv2_guidino.benchmark.local import Say
from nnunetv2_guidino.benchmark.matrix import Matrix
from nnunetv2_guidino.benchmark.report import Results, write_report
from nnunetv2_guidino.benchmark.state import is_done, seconds_of, state_of
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.evaluation.compare import compare
from nnunetv2_guidino.evaluation.evaluate import evaluate_model

Cell = tuple[str, str, int | None]
SeedAndFold = tuple[int | None, str]  # a seed and a fold


def collect(matrix: Matrix, jobs: Sequence[Job], output: Path, say: Say) -> Path | None:
    """Write the tables and report.html of what is done; the report's path, None where nothing is.

    Methods are compared on the folds and seeds that all of them have finished; what is left out is said.
    """
    done = [job for job in jobs if is_done(job.folder)]
    if not done:
        return None
    notes: list[str] = []
    tables: dict[str, list[pd.DataFrame]] = {"scores": [], "comparison": [], "differences": []}
    cells = dict.fromkeys((job.dataset, job.configuration, job.cases) for job in jobs)
    for cell in cells:
        wanted = [job for job in jobs if (job.dataset, job.configuration, job.cases) == cell]
        try:
            _collect_cell(cell, wanted, output, tables, notes)
        except GuidinoError as error:  # the others are shown all the same
            notes.append(f"{_cell_name(cell)}: {error}")
    joined = {name: pd.concat(parts, ignore_index=True) if parts else pd.DataFrame() for name, parts in tables.items()}
    curves = pd.concat([_curve(job) for job in done], ignore_index=True)
    results = Results(_runs(jobs), joined["scores"], joined["comparison"], joined["differences"], curves)
    for note in notes:
        say(f"note: {note}")
    return write_report(output, matrix.title, results, notes)


def _collect_cell(
    cell: Cell, jobs: list[Job], output: Path, tables: dict[str, list[pd.DataFrame]], notes: list[str]
) -> None:
    """Score and compare the methods on one data set, in one configuration, with one number of cases."""
    places: dict[str, dict[SeedAndFold, Job]] = {}
    for job in jobs:
        if is_done(job.folder):
            places.setdefault(job.method, {})[job.seed, job.fold] = job
    shared = common_places([set(of_method) for of_method in places.values()])
    if not shared:
        notes.append(
            f"{_cell_name(cell)}: no fold and seed is done for all methods that have begun: {', '.join(places)}"
        )
        return
    if absent := [method for method in dict.fromkeys(job.method for job in jobs) if method not in places]:
        notes.append(f"{_cell_name(cell)}: nothing is done of {', '.join(absent)}")
    if left_out := sum(len(of_method) for of_method in places.values()) - len(shared) * len(places):
        notes.append(
            f"{_cell_name(cell)}: {left_out} finished trainings are left out, whose fold and seed not all have"
        )
    labels: dict[str, object] = dict(
        zip(("dataset", "configuration", "training_cases"), (*cell[:2], cell[2] or "all"), strict=True)
    )
    folder = output / "evaluations" / _cell_name(cell).replace(" ", "_")
    runs: dict[str, list[Path]] = {}
    for method, of_method in places.items():
        for seed in dict.fromkeys(seed for seed, _ in shared):
            folds = [fold for other, fold in shared if other == seed]
            target = folder / re.sub(r"[^\w.+-]+", "_", method) / f"seed{'' if seed is None else seed}"
            scores = evaluate_model(of_method[seed, folds[0]].model_folder, target, folds=folds).table
            runs.setdefault(method, []).append(target)
            tables["scores"].append(_labelled(scores, {**labels, "method": method, "seed": seed}))
    compared = compare(runs, folder / "comparison")
    tables["comparison"].append(_labelled(compared.table, labels))
    tables["differences"].append(_labelled(compared.differences, labels))


def common_places(of_methods: Sequence[set[SeedAndFold]]) -> list[SeedAndFold]:
    """Seeds and folds that all methods have, as many as make a whole grid: each fold with the same seeds."""
    shared = set.intersection(*of_methods) if of_methods else set()
    seeds, folds = {seed for seed, _ in shared}, {fold for _, fold in shared}
    whole_seeds = {seed for seed in seeds if all((seed, fold) in shared for fold in folds)}
    whole_folds = {fold for fold in folds if all((seed, fold) in shared for seed in seeds)}
    grids: list[list[SeedAndFold]] = [[(seed, fold) for seed in whole_seeds for fold in folds]]
    grids += [[(seed, fold) for seed in seeds for fold in whole_folds]]
    grids += [[place for place in shared if place[0] == seed] for seed in seeds]
    largest = max(len(grid) for grid in grids)
    return sorted(next(grid for grid in grids if len(grid) == largest), key=str)


def _labelled(table: pd.DataFrame, labels: dict[str, object]) -> pd.DataFrame:
    return pd.concat([pd.DataFrame(labels, index=table.index), table], axis=1)


def _cell_name(cell: Cell) -> str:
    return f"{cell[0]} {cell[1]}" + (f" {cell[2]} cases" if cell[2] else "")


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


_LOGGED = re.compile(r": (Epoch|train_loss|val_loss|Pseudo dice|Guide Dice) (.*?)\s*$")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?|nan")


def _curve(job: Job) -> pd.DataFrame:
    """Losses and Dice of each epoch from nnU-Net's own logs; of an epoch that was trained twice, the later."""
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
    return pd.DataFrame([_identity(job) | {"epoch": number} | epochs[number] for number in sorted(epochs)])
