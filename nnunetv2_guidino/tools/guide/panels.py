"""Draw a panel of a case (image, truth, guide, prediction) and contact sheets of many panels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from nnunetv2_guidino.display import displayed, draw_outline

Array = npt.NDArray[Any]

GUIDE_COLOURS = "inferno"
WIDTH = 3  # inches of a picture in a panel
SHEET_COLUMNS, SHEET_ROWS = 2, 10


class Pictured(NamedTuple):
    """The arrays of one case in a panel, on one grid: (D, H, W), or (1, H, W) for 2D images."""

    title: str
    image: Array  # (C, D, H, W)
    guide: Array  # in [0, 1]
    prediction: Array  # any foreground, of bool
    truth: Array | None  # any foreground, of bool
    spacing: Sequence[float]  # of the three axes


class Plane(NamedTuple):
    """A slice of a volume, across one of its axes."""

    axis: int
    position: int


def planes(component: Array) -> list[Plane]:
    """Return the slice of a 2D image; for a volume, the slice along each axis that holds most of the component."""
    if len(component) == 1:
        return [Plane(0, 0)]
    others = ((1, 2), (0, 2), (0, 1))
    return [Plane(axis, int(component.sum(across).argmax())) for axis, across in enumerate(others)]


def largest_component(mask: Array) -> Array:
    """Return the largest connected component of a mask that is not empty."""
    labels, _ = ndimage.label(mask)
    return labels == 1 + np.bincount(labels.ravel())[1:].argmax()


def _object_to_show(case: Pictured) -> Array:
    """Return the largest component of the truth, else of the prediction; the guide itself if both are empty."""
    for mask in (case.truth, case.prediction):
        if mask is not None and mask.any():
            return largest_component(mask)
    return case.guide


def draw_panel(case: Pictured, file: Path) -> None:
    """Write a panel: one row for a 2D image, three rows (orthogonal planes) for a volume."""
    shown = planes(_object_to_show(case))
    titles = ["image", *(["truth"] if case.truth is not None else []), "guide", "prediction"]
    heights = [WIDTH * min(_sides(case, plane)[0] / _sides(case, plane)[1], 2) for plane in shown]
    figure = Figure(figsize=(WIDTH * len(titles) + 0.6, sum(heights) + 0.4 * len(shown) + 0.4), layout="constrained")
    grid = figure.subplots(len(shown), len(titles), squeeze=False, height_ratios=heights)
    image = displayed(case.image)
    for axes, plane in zip(grid, shown, strict=True):
        _draw_plane(dict(zip(titles, axes, strict=True)), case, image, plane)
        if len(shown) > 1:
            axes[0].set_title(f"{'zyx'[plane.axis]} = {plane.position}", loc="left", fontsize=10)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    figure.colorbar(
        ScalarMappable(Normalize(0, 1), GUIDE_COLOURS), ax=grid, shrink=0.9, pad=0.01, aspect=25 * len(shown)
    )
    figure.suptitle(case.title, parse_math=False)  # a name is a name: $5 is no formula
    figure.savefig(file, dpi=100)


def _sides(case: Pictured, plane: Plane) -> list[float]:
    """Return height and width of a plane in units of the spacing."""
    sides = zip(case.guide.shape, case.spacing, strict=True)
    return [size * spacing for axis, (size, spacing) in enumerate(sides) if axis != plane.axis]


def _draw_plane(axes: dict[str, Axes], case: Pictured, image: Array, plane: Plane) -> None:
    cut = (slice(None),) * plane.axis + (plane.position,)
    across = [spacing for axis, spacing in enumerate(case.spacing) if axis != plane.axis]
    aspect = across[0] / across[1]
    for title, axis in axes.items():
        if title == "guide":
            axis.imshow(case.guide[cut], cmap=GUIDE_COLOURS, vmin=0, vmax=1, aspect=aspect)
        else:
            picture = np.dstack([channel[cut] for channel in image])
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect=aspect)
        axis.set_axis_off()
        if title == "prediction":
            draw_outline(axis, case.prediction[cut], "cyan")
        if title != "image" and case.truth is not None:
            draw_outline(axis, case.truth[cut], "white")


def draw_contact_sheets(panels: Sequence[Path], folder: Path) -> list[str]:
    """Write the panels at half their size, in order, on contact_sheet_1.png and so on; return the sheets' names."""
    names: list[str] = []
    for first in range(0, len(panels), SHEET_COLUMNS * SHEET_ROWS):
        thumbnails = [_half(panel) for panel in panels[first : first + SHEET_COLUMNS * SHEET_ROWS]]
        width, height = (max(sizes) for sizes in zip(*(thumbnail.size for thumbnail in thumbnails), strict=True))
        rows = -(-len(thumbnails) // SHEET_COLUMNS)
        sheet = Image.new("RGB", (min(SHEET_COLUMNS, len(thumbnails)) * width, rows * height), "white")
        for i, thumbnail in enumerate(thumbnails):
            sheet.paste(thumbnail, (i % SHEET_COLUMNS * width, i // SHEET_COLUMNS * height))
        names.append(f"contact_sheet_{len(names) + 1}.png")
        sheet.save(folder / names[-1])
    return names


def _half(file: Path) -> Image.Image:
    with Image.open(file) as panel:
        return panel.convert("RGB").reduce(2)
