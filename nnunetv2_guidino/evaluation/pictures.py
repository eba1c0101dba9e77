"""A case as a picture: where reference and prediction agree, and where they do not."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunetv2_guidino.display import displayed
from nnunetv2_guidino.evaluation.cases import PredictedCase
from nnunetv2_guidino.evaluation.reading import PairReader

Array = npt.NDArray[Any]

SHOWN = 1600  # pixels along a side at most; a picture has fewer
# colours that the colour-blind can tell apart (Okabe and Ito)
AGREEMENT = {
    "background": "#202020",
    "right": "#009E73",
    "missed": "#56B4E9",
    "false alarm": "#D55E00",
    "other class": "#F0E442",
    "ignored": "#808080",
}
AGREEMENT_COLOURS = np.array(
    [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in AGREEMENT.values()], np.uint8
)


def draw_case(case: PredictedCase, pairs: PairReader) -> bytes:
    """The case as PNG: the agreement of the masks and, beside it, their outlines on the image if there is one.

    A volume is shown by the axial slice (first array axis) with the most wrong voxels.
    """
    reference, prediction, spacing = pairs.read(case)
    agreement = agreement_map(reference, prediction, pairs.labels.ignore)
    step = -(-max(reference.shape[-2:]) // SHOWN)
    image = read_displayed(case, pairs, step) if case.image else None
    title = ""
    if reference.ndim == 3:
        z, depth = most_wrong_slice([agreement]), len(agreement)
        agreement, image = agreement[z], image[:, z] if image is not None else None
        title = f"slice {z + 1} of {depth}"
    agreement = agreement[::step, ::step]
    figure = Figure(figsize=(8, 4.4) if image is not None else (5, 4.4), layout="constrained")
    axes = figure.subplots(1, 2 if image is not None else 1, squeeze=False)[0]
    aspect = spacing[-2] / spacing[-1]
    if image is not None:
        _draw_outlines(axes[0], image, agreement, aspect)
    _draw_agreement(axes[-1], agreement, aspect)
    axes[-1].set_title(title, fontsize=9)
    figure.legend(handles=agreement_legend(agreement), loc="outside lower center", ncols=5, frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    return png.getvalue()


def read_displayed(case: PredictedCase, pairs: PairReader, step: int) -> Array:
    """The case's image (C, …, H, W) in 0…1, every step-th pixel.

    Values that are no numbers would leave nothing to see of the others: shown as 0.
    """
    image = pairs.read_image(case)[..., ::step, ::step]
    return displayed(np.nan_to_num(image, nan=0, posinf=0, neginf=0))


def agreement_map(reference: Array, prediction: Array, ignore: int | None) -> npt.NDArray[np.uint8]:
    """Position in AGREEMENT of each pixel."""
    kinds = np.where(reference == prediction, np.uint8(1), np.uint8(4))
    kinds[(reference > 0) & (prediction == 0)] = 2
    kinds[(reference == 0) & (prediction > 0)] = 3
    kinds[(reference == 0) & (prediction == 0)] = 0
    if ignore is not None:
        kinds[reference == ignore] = 5
    return kinds


def most_wrong_slice(agreements: Sequence[Array]) -> int:
    """The axial slice (first array axis) of a volume with the most wrong voxels, of several predictions together.

    Args:
        agreements: Each (D, H, W), as `agreement_map` gives it.
    """
    wrong = sum(((kinds > 1) & (kinds < 5)).sum((1, 2)) for kinds in agreements)
    right = sum((kinds == 1).sum((1, 2)) for kinds in agreements)
    return max(range(len(agreements[0])), key=lambda z: (wrong[z], right[z]))


def _draw_outlines(axes: Axes, image: Array, agreement: Array, aspect: float) -> None:
    axes.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=1, aspect=aspect)
    for kinds, colour in (((1, 2, 4), "white"), ((1, 3, 4), "cyan")):
        mask = np.isin(agreement, kinds)
        if mask.any() and not mask.all():
            axes.contour(mask, levels=[0.5], colors=colour, linewidths=1.5)
    axes.set_title("reference (white), prediction (cyan)", fontsize=9)
    axes.set_axis_off()


def _draw_agreement(axes: Axes, agreement: Array, aspect: float) -> None:
    axes.imshow(AGREEMENT_COLOURS[agreement], aspect=aspect, interpolation="nearest")
    axes.set_axis_off()


def agreement_legend(agreement: Array) -> list[Patch]:
    """A patch for each kind that is there."""
    return [
        Patch(color=colour, label=kind) for i, (kind, colour) in enumerate(AGREEMENT.items()) if i in agreement and i
    ]
