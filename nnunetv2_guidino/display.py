"""Images of any modality as pictures on a screen."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Array = npt.NDArray[Any]


def displayed(image: Array) -> Array:
    """Scale an image (C, …) to 0…1; return (3, …) if it has three channels, else its first channel as (1, …)."""
    low, high = np.percentile(image, (0.5, 99.5))
    image = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    return image if len(image) == 3 else image[:1]


def draw_outline(axes: Axes, mask: Array, colour: str, width: float = 1.3) -> None:
    """Draw the outline of a mask (H, W); a mask that is empty or fills the picture has none."""
    if mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors=colour, linewidths=width)


def picture_file(figure: Figure, dpi: int, **options: Any) -> bytes:
    """Return the figure as the content of a PNG file, or of another `format` that matplotlib's savefig knows."""
    stream = io.BytesIO()
    with style.context("default"):  # nnU-Net changes the fonts of the whole process
        figure.savefig(stream, dpi=dpi, **options)
    return stream.getvalue()
