"""Pictures of a case: where reference and prediction agree, and where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunetv2_guidino.display import displayed, draw_outline, picture_file
from nnunetv2_guidino.tools.evaluation.cases import PredictedCase
from nnunetv2_guidino.tools.evaluation.reading import PairReader

Array = npt.NDArray[Any]

SHOWN = 1600  # pixels along a side at most; a picture has fewer
# colours that colour-blind people can tell apart (Okabe and Ito)
AGREEMENT = {
    "background": "#202020",
    "right": "#009E73",
    "missed": "#56B4E9",
    "false alarm": "#D55E00",
    "other class": "#F0E442",
    "ignored": "#808080",
}
AGREEMENT_COLOURS = np.array([list(bytes.fromhex(colour[1:])) for colour in AGREEMENT.values()], np.uint8)


class Slice(NamedTuple):
    """The slice of a case that a picture shows, with every n-th pixel of a large image."""

    image: Array | None  # (h, w, 3) in 0…1
    reference: Array  # labels (h, w)
    agreements: list[Array]  # an agreement map (h, w) for each prediction
    aspect: float  # height of a pixel / width
    position: int  # along the first axis of a volume
    title: str  # `slice 3 of 7`; empty for an image


def read_slice(cases: Sequence[PredictedCase], pairs: PairReader, largest: int) -> Slice:
    """Read predictions of one case; of a volume, choose the axial slice (first array axis) with the most wrong voxels.

    Args:
        cases: The case with the prediction of each method.
        largest: The largest number of pixels along a side.

    Raises:
        GuidinoError: If a file is missing or damaged.
    """
    found = [pairs.read(case) for case in cases]
    reference, _, spacing = found[0]
    agreements = [agreement_map(reference, prediction, pairs.labels.ignore) for _, prediction, _ in found]
    step = -(-max(reference.shape[-2:]) // largest)
    image = None
    if cases[0].image:  # one NaN or infinite value would hide all others
        stored = pairs.read_image(cases[0])[..., ::step, ::step]
        image = displayed(np.nan_to_num(stored, nan=0, posinf=0, neginf=0))
    position, title = 0, ""
    if reference.ndim == 3:
        position = _most_wrong_slice(agreements)
        title = f"slice {position + 1} of {len(reference)}"
        reference, agreements = reference[position], [kinds[position] for kinds in agreements]
        image = None if image is None else image[:, position]
    reference, agreements = reference[::step, ::step], [kinds[::step, ::step] for kinds in agreements]
    image = None if image is None else np.broadcast_to(image.transpose(1, 2, 0), (*reference.shape, 3))
    return Slice(image, reference, agreements, spacing[-2] / spacing[-1], position, title)


def draw_case(case: PredictedCase, pairs: PairReader) -> bytes:
    """Return a PNG of the masks' agreement and, beside it, of their outlines on the image if there is one."""
    image, _, (agreement,), aspect, _, title = read_slice([case], pairs, SHOWN)
    figure = Figure(figsize=(5 if image is None else 8, 4.4), layout="constrained")
    axes = figure.subplots(1, 1 if image is None else 2, squeeze=False)[0]
    if image is not None:
        _show(axes[0], image, aspect, "reference (white), prediction (cyan)")
        for kinds, colour in (((1, 2, 4), "white"), ((1, 3, 4), "cyan")):
            draw_outline(axes[0], np.isin(agreement, kinds), colour, 1.5)
    _show(axes[-1], AGREEMENT_COLOURS[agreement], aspect, title)
    figure.legend(handles=agreement_legend(agreement), loc="outside lower center", ncols=5, frameon=False)
    return picture_file(figure, dpi=100)


def _show(axes: Axes, picture: Array, aspect: float, title: str) -> None:
    axes.imshow(picture, aspect=aspect, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def agreement_map(reference: Array, prediction: Array, ignore: int | None) -> npt.NDArray[np.uint8]:
    """Return for each pixel the position of its kind in AGREEMENT."""
    kinds = np.where(reference == prediction, np.uint8(1), np.uint8(4))
    kinds[(reference > 0) & (prediction == 0)] = 2
    kinds[(reference == 0) & (prediction > 0)] = 3
    kinds[(reference == 0) & (prediction == 0)] = 0
    if ignore is not None:
        kinds[reference == ignore] = 5
    return kinds


def _most_wrong_slice(agreements: Sequence[Array]) -> int:
    wrong = sum(((kinds > 1) & (kinds < 5)).sum((1, 2)) for kinds in agreements)
    right = sum((kinds == 1).sum((1, 2)) for kinds in agreements)
    return max(range(len(agreements[0])), key=lambda z: (wrong[z], right[z]))


def agreement_legend(agreement: Array) -> list[Patch]:
    """Return a patch for each kind of AGREEMENT in the map, without the background's."""
    return [
        Patch(color=colour, label=kind) for i, (kind, colour) in enumerate(AGREEMENT.items()) if i in agreement and i
    ]
