"""One case as a picture: its reference, every method's segmentation, and below each the guide that it had."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from nnunetv2_guidino.evaluation.cases import PredictedCase
from nnunetv2_guidino.evaluation.pictures import (
    AGREEMENT_COLOURS,
    agreement_legend,
    agreement_map,
    most_wrong_slice,
    read_displayed,
)
from nnunetv2_guidino.evaluation.reading import PairReader
from nnunetv2_guidino.inspection.pictures import GUIDE_COLOURS

Array = npt.NDArray[Any]

SHOWN = 400  # pixels along a side at most
WIDTH = 2.0  # inches of a picture
OPACITY = 0.6
CLASS_COLOURS = np.array([to_rgb(colour) for colour in ("white", "#CC79A7", "#F0E442", "#0072B2")])  # in turn


@dataclass(frozen=True)
class Shown:
    """What one method makes of the case.

    Args:
        title: Name of the method, with its score.
        case: Reference, prediction and image.
        guide: (D, h, w) in 0…255, every n-th pixel of the image's last two axes; None for a method without one.
        guide_title: The guide's score.
    """

    title: str
    case: PredictedCase
    guide: npt.NDArray[np.uint8] | None = None
    guide_title: str = "guide"


def draw_side_by_side(shown: Sequence[Shown], pairs: PairReader) -> tuple[bytes, str]:
    """The picture as JPEG, and which slice of a volume it shows ("" for an image): the one with the most errors.

    Raises:
        GuidinoError: For files that are missing or damaged.
    """
    read = [pairs.read(method.case) for method in shown]
    reference, _, spacing = read[0]
    agreements = [agreement_map(reference, prediction, pairs.labels.ignore) for _, prediction, _ in read]
    step = -(-max(reference.shape[-2:]) // SHOWN)
    image = read_displayed(shown[0].case, pairs, step) if shown[0].case.image else None
    slice_name, z = "", 0
    if reference.ndim == 3:
        z = most_wrong_slice(agreements)
        slice_name = f"slice {z + 1} of {len(reference)}"
        reference, agreements = reference[z], [kinds[z] for kinds in agreements]
        image = None if image is None else image[:, z]
    reference, agreements = reference[::step, ::step], [kinds[::step, ::step] for kinds in agreements]
    background = (
        np.zeros((*reference.shape, 3))
        if image is None
        else np.broadcast_to(image.transpose(1, 2, 0), (*reference.shape, 3))
    )
    guides = [None if method.guide is None else method.guide[z] for method in shown]
    return _draw(shown, background, reference, agreements, guides, spacing[-2] / spacing[-1]), slice_name


def _draw(
    shown: Sequence[Shown],
    background: Array,
    reference: Array,
    agreements: Sequence[Array],
    guides: Sequence[Array | None],
    aspect: float,
) -> bytes:
    height = WIDTH * min(max(aspect * reference.shape[0] / reference.shape[1], 0.4), 1.6)
    columns = 1 + len(shown)
    figure = Figure(figsize=(WIDTH * columns, 2 * height + 0.6), layout="constrained")
    grid = figure.subplots(2, columns)
    for axes in grid.flat:
        axes.set_axis_off()
    _show(grid[0, 0], background, aspect, "image")
    dim, classes = 0.4 * background, CLASS_COLOURS[(reference - 1) % len(CLASS_COLOURS)]
    _show(grid[1, 0], np.where((reference > 0)[..., None], 0.5 * dim + 0.5 * classes, dim), aspect, "reference")
    for axes, method, kinds, guide in zip(grid.T[1:], shown, agreements, guides, strict=True):
        wrong_or_right = (kinds > 0)[..., None] * OPACITY
        overlay = background * (1 - wrong_or_right) + wrong_or_right * AGREEMENT_COLOURS[kinds] / 255
        _show(axes[0], overlay, aspect, method.title)
        if guide is not None:
            axes[1].imshow(
                guide, cmap=GUIDE_COLOURS, vmin=0, vmax=255, aspect="auto", extent=axes[0].images[0].get_extent()
            )
            axes[1].set_aspect(aspect)
            if (reference > 0).any():
                axes[1].contour(reference > 0, levels=[0.5], colors="white", linewidths=1)
            axes[1].set_title(method.guide_title, fontsize=8)
    kinds = np.concatenate([kinds.ravel() for kinds in agreements])
    figure.legend(handles=agreement_legend(kinds), loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    stream = io.BytesIO()
    with style.context("default"):  # nnU-Net changes the fonts of the whole process
        figure.savefig(stream, format="jpg", dpi=90, pil_kwargs={"quality": 85})
    return stream.getvalue()


def _show(axes: Axes, picture: Array, aspect: float, title: str) -> None:
    axes.imshow(picture, vmin=0, vmax=1, aspect=aspect)
    axes.set_title(title, fontsize=8, parse_math=False)
