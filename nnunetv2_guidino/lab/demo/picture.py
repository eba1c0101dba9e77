"""The demo's picture: image, truth, guide and both predictions, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def draw_comparison(
    output: Path,
    image_files: Sequence[Path],
    truths: Sequence[Path],
    guides: Sequence[np.ndarray],
    predictions: Mapping[str, Sequence[tuple[Path, float]]],
) -> None:
    """One row per image, the truth outlined; `predictions` holds each model's files with their Dice."""
    from matplotlib.figure import Figure

    from nnunetv2_guidino.display import draw_outline

    titles = ["image", "truth", "guide", *predictions]
    figure = Figure(figsize=(2 * len(titles), 2.15 * len(image_files)), layout="constrained")
    grid = figure.subplots(len(image_files), len(titles), squeeze=False)
    for row, (axes, image_file) in enumerate(zip(grid, image_files, strict=True)):
        image, truth = np.asarray(Image.open(image_file)), np.asarray(Image.open(truths[row]))
        for axis, title in zip(axes, titles, strict=True):
            axis.imshow(image)
            axis.set_axis_off()
            if title in predictions:
                file, dice = predictions[title][row]
                prediction = np.asarray(Image.open(file))
                axis.imshow(np.ma.masked_equal(prediction, 0), cmap="winter", alpha=0.5, vmin=0, vmax=1)
                axis.set_title(f"{title}, Dice {dice:.2f}", fontsize=9)
            elif row == 0:
                axis.set_title(title, fontsize=9)
            if title == "guide":
                axis.imshow(guides[row], cmap="inferno", vmin=0, vmax=1)
            if title != "image":
                draw_outline(axis, truth, "white", 1)
    figure.savefig(output, dpi=110)
