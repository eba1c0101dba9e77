"""The cases in which guidance fails: where a method loses most against the first one, and where Dice is lowest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from nnunetv2_guidino.benchmark.guide_tables import case_rows
from nnunetv2_guidino.benchmark.guides import KeptGuide
from nnunetv2_guidino.benchmark.job import Job
from nnunetv2_guidino.benchmark.side_by_side import Shown, draw_side_by_side
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.evaluation.cases import PredictedCase, pair_folds
from nnunetv2_guidino.evaluation.labels import label_set, read_dataset_json
from nnunetv2_guidino.evaluation.reading import PairReader, find_reader
from nnunetv2_guidino.inspection.guide_alone import training_images
from nnunetv2_guidino.nnunet.folders import folder_of

NUMBER = 6


@dataclass(frozen=True)
class WorstCases:
    """Of one data set.

    Args:
        table: One row for each case and method: case, seed, fold, slice, method, dice and guide_dice.
        pictures: Title and JPEG of each case.
    """

    table: pd.DataFrame
    pictures: list[tuple[str, bytes]]


def choose_worst(scores: pd.DataFrame, number: int = NUMBER) -> pd.DataFrame:
    """The cases to show, each once: those in which a method loses most against the first one with the same seed, then
    those with the lowest Dice of any method but the first (of the first, if it is alone).

    Args:
        scores: One row for each method, seed, fold, case and class, with dice; NaN is right: nothing where nothing is.

    Returns:
        Dice (mean over classes) of each method, a column each, with the index seed, fold, case.
    """
    scores = scores.assign(dice=scores["dice"].fillna(1.0))
    place = ["seed", "fold", "case"]
    methods = list(scores["method"].unique())
    wide = scores.groupby([*place, "method"], sort=False, dropna=False)["dice"].mean().unstack("method")[methods]
    loss = wide.sub(wide[methods[0]], axis=0).min(axis=1)  # 0 where none loses: the first is among them
    lowest = wide[methods[1:] or methods].min(axis=1)
    order = pd.DataFrame({"loss": loss, "lowest": lowest}).sort_values(["loss", "lowest"])
    chosen = wide.loc[order.index]
    return chosen[~chosen.index.get_level_values("case").duplicated()].head(number)


def worst_cases(
    scores: pd.DataFrame, jobs: Mapping[str, Mapping[tuple[int | None, str], Job]], guides: Mapping[Job, KeptGuide]
) -> WorstCases:
    """Draw them.

    Args:
        scores: As `choose_worst` takes them, of one data set.
        jobs: The trainings of each method by seed and fold.
        guides: Of those that have one.

    Raises:
        GuidinoError: For files that are missing or damaged.
    """
    rows, pictures = [], []
    images = _images(next(job for of_method in jobs.values() for job in of_method.values()).dataset)
    for (seed, fold, name), dice in choose_worst(scores).iterrows():
        of_case = {method: jobs[method][None if pd.isna(seed) else int(seed), fold] for method in dice.index}
        example = next(iter(of_case.values()))
        shown, about = [], []
        for method, job in of_case.items():
            guide_dice = _guide_dice(guides.get(job), name)
            about.append({"method": method, "dice": dice[method], "guide_dice": guide_dice})
            shown.append(_shown(job, name, f"{method} {100 * dice[method]:.1f}", guides.get(job), guide_dice))
        picture, place = draw_side_by_side(_with_image(shown, images.get(name)), _pairs(example, shown[0].case))
        where = [f"fold {fold}", *([] if pd.isna(seed) else [f"seed {int(seed)}"]), *([place] if place else [])]
        pictures.append((f"{name}: {', '.join(where)}", picture))
        rows += [{"case": name, "seed": seed, "fold": fold, "slice": place} | row for row in about]
    return WorstCases(pd.DataFrame(rows), pictures)


def _shown(job: Job, name: str, title: str, guide: KeptGuide | None, guide_dice: float | None) -> Shown:
    dataset_json = read_dataset_json(job.model_folder / "dataset.json")
    cases = pair_folds(job.model_folder, [job.fold], None, job.dataset, dataset_json["file_ending"])
    case = next(case for case in cases if case.name == name)
    guide_title = "guide" if guide_dice is None else f"guide {100 * guide_dice:.1f}"
    return Shown(title, case, guide.picture(name) if guide else None, guide_title)


def _guide_dice(guide: KeptGuide | None, case: str) -> float | None:
    """The mean over the classes that have a guide; None without a guide."""
    if guide is None:
        return None
    rows = case_rows(guide.entries)
    return float(rows.loc[rows["case"] == case, "guide_dice"].fillna(1.0).mean())


def _images(dataset: str) -> dict[str, list[Path]]:
    """Each training case's files; none where raw data have been removed after preprocessing."""
    try:
        return training_images(folder_of("nnUNet_raw") / dataset)
    except GuidinoError:
        return {}


def _with_image(shown: list[Shown], files: list[Path] | None) -> list[Shown]:
    """With the first channel, where there is one."""
    image = files[0] if files else None
    return [replace(method, case=replace(method.case, image=image)) for method in shown]


def _pairs(job: Job, case: PredictedCase) -> PairReader:
    file = job.model_folder / "dataset.json"
    dataset_json = read_dataset_json(file)
    return PairReader(find_reader(dataset_json, case.reference), label_set(dataset_json["labels"], str(file)))
