"""Write the table and the picture of `guidino encoder probe`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nnunetv2_guidino.files import filled_folder
from nnunetv2_guidino.lab.probe.probing import Result
from nnunetv2_guidino.printable import align


def table(results: Sequence[Result]) -> str:
    """Return aligned columns with a row for each input size and layer."""
    rows = [("size", "layer", "guide Dice", "of each seed", "seconds")]
    for r in results:
        seeds = " ".join(f"{dice:.3f}" for dice in r.dice)
        rows.append((str(r.size), str(r.layer), f"{mean(r.dice):.3f}", seeds, f"{r.seconds:.0f}"))
    return align(rows)


def plot(results: Sequence[Result], title: str, file: Path) -> None:
    """Draw guide Dice over layers with a line for each size and a dot for each seed."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for color, size in enumerate(sorted({r.size for r in results})):
        of_size = [r for r in results if r.size == size]
        axes.plot([r.layer for r in of_size], [mean(r.dice) for r in of_size], f"C{color}-", label=f"{size} pixels")
        for r in of_size:
            axes.plot([r.layer] * len(r.dice), r.dice, f"C{color}o", markersize=4)
    axes.set(xlabel="layer", ylabel="guide Dice on the validation cases")
    axes.set_title(title, parse_math=False)  # names of data sets and folders are no formulas
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=150)


def write_results(results: Sequence[Result], title: str, folder: Path) -> None:
    """probe.txt and probe.png, written over as more results come.

    Raises:
        GuidinoError: If they cannot be written; those of before are there then.
    """
    with filled_folder(folder) as new:
        (new / "probe.txt").write_text(f"{title}\n\n{table(results)}\n", encoding="utf-8")
        plot(results, title, new / "probe.png")
