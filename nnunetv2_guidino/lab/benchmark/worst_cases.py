"""The cases in which guidance fails: the largest losses against the first method, and the lowest Dice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from nnunetv2_guidino.display import draw_outline, picture_file
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.benchmark.guides import KeptGuide, case_rows
from nnunetv2_guidino.lab.benchmark.job import Job
from nnunetv2_guidino.nnunet.descriptions import read_dataset_json
from nnunetv2_guidino.nnunet.folders import folder_of
from nnunetv2_guidino.tools.evaluation.case_pictures import AGREEMENT_COLOURS, Array, agreement_legend, read_slice
from nnunetv2_guidino.tools.evaluation.cases import PredictedCase, pair_folds
from nnunetv2_guidino.tools.evaluation.reading import PairReader, find_reader
from nnunetv2_guidino.tools.evaluation.scored_labels import label_set
from nnunetv2_guidino.tools.guide.guide_alone import training_images
from nnunetv2_guidino.tools.guide.panels import GUIDE_COLOURS

NUMBER = 6
SHOWN = 400  # pixels along a side at most
WIDTH = 2.0  # inches of a picture
OPACITY = 0.6
CLASS_COLOURS = np.array([to_rgb(colour) for colour in ("white", "#CC79A7", "#F0E442", "#0072B2")])  # in turn


@dataclass(frozen=True)
class Shown:
    """The result of a method in a case.

    Args:
        title: The method's name and score.
        case: The reference, the method's prediction and the image.
        guide: (D, h, w) in 0…255, every n-th pixel of the image's last two axes; None without a guide.
        guide_title: The title with the guide's score.
    """

    title: str
    case: PredictedCase
    guide: npt.NDArray[np.uint8] | None = None
    guide_title: str = "guide"


def choose_worst(scores: pd.DataFrame, number: int = NUMBER) -> pd.DataFrame:
    """Choose the cases to show, each once.

    First come the cases in which a method loses most against the first method with the same seed, then those with the
    lowest Dice of any method but the first (of the first, if there is no other).

    Args:
        scores: One row for each method, seed, fold, case and class, with dice; NaN is a correct empty prediction.

    Returns:
        The Dice (mean over classes) of each method, one column each, with the index seed, fold, case.
    """
    scores = scores.assign(dice=scores["dice"].fillna(1.0))
    place = ["seed", "fold", "case"]
    methods = list(scores["method"].unique())
    wide = scores.groupby([*place, "method"], sort=False, dropna=False)["dice"].mean().unstack("method")[methods]
    loss = wide.sub(wide[methods[0]], axis=0).min(axis=1)  # 0 if no method loses: the first method is among them
    lowest = wide[methods[1:] or methods].min(axis=1)
    order = pd.DataFrame({"loss": loss, "lowest": lowest}).sort_values(["loss", "lowest"])
    chosen = wide.loc[order.index]
    return chosen[~chosen.index.get_level_values("case").duplicated()].head(number)


def worst_cases(
    scores: pd.DataFrame, jobs: Mapping[str, Mapping[tuple[int | None, str], Job]], guides: Mapping[Job, KeptGuide]
) -> tuple[pd.DataFrame, list[tuple[str, bytes]]]:
    """Draw the worst cases of one data set.

    Args:
        scores: As for `choose_worst`.
        jobs: The trainings of each method by seed and fold.
        guides: The guides of the trainings that have one.

    Returns:
        One row for each case and method (case, seed, fold, slice, method, dice and guide_dice), and the title and JPEG
        of each case.

    Raises:
        GuidinoError: If a file is missing or damaged.
    """
    rows, pictures = [], []
    example = next(job for of_method in jobs.values() for job in of_method.values())
    images, file = _images(example.dataset), example.model_folder / "dataset.json"
    dataset_json = read_dataset_json(file, "file_ending")
    for (seed, fold, name), dice in choose_worst(scores).iterrows():
        shown, of_case = [], []
        for method, value in dice.items():
            job = jobs[method][None if pd.isna(seed) else int(seed), fold]
            pairs = pair_folds(job.model_folder, [fold], None, job.dataset, dataset_json["file_ending"])
            case = replace(next(pair for pair in pairs if pair.name == name), image=images.get(name))
            title, guide, guide_dice = f"{method} {100 * value:.1f}", guides.get(job), None
            if guide:
                guide_dice = _mean_guide_dice(guide, name)
                shown.append(Shown(title, case, guide.picture(name), f"guide {100 * guide_dice:.1f}"))
            else:
                shown.append(Shown(title, case))
            of_case.append({"method": method, "dice": value, "guide_dice": guide_dice})
        reader = find_reader(dataset_json, shown[0].case.reference)
        picture, place = draw_side_by_side(shown, PairReader(reader, label_set(dataset_json.get("labels"), str(file))))
        where = [f"fold {fold}", *([] if pd.isna(seed) else [f"seed {int(seed)}"]), *([place] if place else [])]
        pictures.append((f"{name}: {', '.join(where)}", picture))
        rows += [{"case": name, "seed": seed, "fold": fold, "slice": place} | row for row in of_case]
    return pd.DataFrame(rows), pictures


def _mean_guide_dice(guide: KeptGuide, case: str) -> float:
    """Return the mean over the classes that have a guide."""
    rows = case_rows(guide.entries)
    return float(rows.loc[rows["case"] == case, "guide_dice"].fillna(1.0).mean())


def _images(dataset: str) -> dict[str, Path]:
    """Return the first channel of each training case; nothing if the raw data were removed after preprocessing."""
    try:
        return {name: files[0] for name, files in training_images(folder_of("nnUNet_raw") / dataset).items()}
    except GuidinoError:
        return {}


def draw_side_by_side(shown: Sequence[Shown], pairs: PairReader) -> tuple[bytes, str]:
    """Draw image, reference, each method's segmentation and below it its guide.

    Returns:
        A JPEG, and the slice that it shows of a volume (empty for an image): the slice with the most errors.

    Raises:
        GuidinoError: If a file is missing or damaged.
    """
    image, reference, agreements, aspect, position, place = read_slice([method.case for method in shown], pairs, SHOWN)
    background = np.zeros((*reference.shape, 3)) if image is None else image
    height = WIDTH * min(max(aspect * reference.shape[0] / reference.shape[1], 0.4), 1.6)
    columns = 1 + len(shown)
    figure = Figure(figsize=(WIDTH * columns, 2 * height + 0.6), layout="constrained")
    grid = figure.subplots(2, columns)
    for axes in grid.flat:
        axes.set_axis_off()
    _show(grid[0, 0], background, aspect, "image")
    dim, classes = 0.4 * background, CLASS_COLOURS[(reference - 1) % len(CLASS_COLOURS)]
    _show(grid[1, 0], np.where((reference > 0)[..., None], 0.5 * dim + 0.5 * classes, dim), aspect, "reference")
    for axes, method, kinds in zip(grid.T[1:], shown, agreements, strict=True):
        opacity = (kinds > 0)[..., None] * OPACITY
        overlay = background * (1 - opacity) + opacity * AGREEMENT_COLOURS[kinds] / 255
        _show(axes[0], overlay, aspect, method.title)
        if method.guide is not None:
            extent = axes[0].images[0].get_extent()
            axes[1].imshow(method.guide[position], cmap=GUIDE_COLOURS, vmin=0, vmax=255, aspect="auto", extent=extent)
            axes[1].set_aspect(aspect)
            draw_outline(axes[1], reference > 0, "white", 1)
            axes[1].set_title(method.guide_title, fontsize=8)
    handles = agreement_legend(np.concatenate([kinds.ravel() for kinds in agreements]))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    return picture_file(figure, dpi=90, format="jpg", pil_kwargs={"quality": 85}), place


def _show(axes: Axes, picture: Array, aspect: float, title: str) -> None:
    axes.imshow(picture, vmin=0, vmax=1, aspect=aspect)
    axes.set_title(title, fontsize=8, parse_math=False)
