"""Measure how good a guide would be before any training, for each layer and input size of an encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nnunetv2_guidino.bounds import COUNT, FOLD, PIXELS
from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.devices import usable_device
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import filled_folder
from nnunetv2_guidino.lab.probe.fold_patches import Fold, read_fold
from nnunetv2_guidino.lab.probe.probing import Effort, Result, measure
from nnunetv2_guidino.nnunet.folders import preprocessed_folder
from nnunetv2_guidino.nnunet.plans_file import PlansFile
from nnunetv2_guidino.printable import align


@dataclass(frozen=True)
class Probe:
    """A probe whose arguments have been checked. It yields the guide's Dice from each layer and size.

    Args:
        title: Encoder, data set, configuration and fold.
        fold: The cases to train on and to score.
        config: The guide's encoder, prototypes, similarity and read-out.
        layers: The layers, counted from 1; None for all.
        sizes: The sizes of the encoder's input, in pixels.
        effort: Seeds, steps, patches and device.
        output: The folder for probe.txt and probe.png; None writes nothing.
    """

    title: str
    fold: Fold
    config: GuideConfig
    layers: Sequence[int] | None
    sizes: Sequence[int]
    effort: Effort
    output: Path | None

    def __iter__(self) -> Iterator[Result]:
        """Measure, yield and write one result after the other.

        Raises:
            GuidinoError: If the encoder is missing or has no such layer.
        """
        results: list[Result] = []
        for result in measure(self.fold, self.config, self.layers, self.sizes, self.effort):
            results.append(result)
            if self.output:
                write_results(results, self.title, self.output)
            yield result


def probe(
    dataset: str,
    configuration: str = "2d",
    fold: int = 0,
    plans: str = "nnUNetPlans",
    encoder: str | None = None,
    layers: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
    seeds: int = 1,
    steps: int = 320,
    patches: int = 1,
    device: str = "cpu",
    output: Path | None = None,
) -> Probe:
    """Train a TokenBook alone on a fold's tokens, from each layer at each input size, and score its guide.

    Nothing is measured before the results are read.

    Args:
        dataset: Name or number of a data set that nnU-Net has preprocessed.
        configuration: A configuration of nnU-Net, such as "2d".
        fold: The number of a fold.
        plans: The name of the plans.
        encoder: The encoder's name on the hub, or its folder; the default is that of the plans, else GUIDINO_ENCODER.
        layers: The layers, counted from 1; the default is all.
        sizes: The sizes of the encoder's input: sides in pixels of a square of its area. The default is the plans'
            min_input_size.
        seeds: The number of TokenBooks trained per layer.
        steps: The steps of each training.
        patches: The number of patches of each case.
        device: "cpu", "cuda" or "mps".
        output: The folder for probe.txt and probe.png; None writes nothing.

    Returns:
        The probe; `list(...)` of it is a result for each size and layer.

    Raises:
        GuidinoError: If there are no such data, plans or fold, or a number is out of range.
    """
    for name, value in {"seeds": seeds, "steps": steps, "patches": patches}.items():
        COUNT.check(f"--{name}", value)
    FOLD.check("-f", fold)
    for size in sizes or ():
        PIXELS.check("--sizes", size)
    if layers is not None and (not layers or min(layers) < 1):
        raise GuidinoError(f"--layers {layers}: expected numbers from 1")
    effort = Effort(seeds, steps, patches, usable_device(device))
    folder = preprocessed_folder(dataset)
    config = PlansFile.read(folder / f"{plans}.json").guide
    if encoder:
        config = replace(config, encoder=encoder)
    cases = read_fold(folder, plans, configuration, fold)
    title = f"{config.encoder}, {folder.name}, {configuration}, fold {fold}"
    return Probe(title, cases, config, layers, sizes or [config.min_input_size], effort, output)


def best(results: Sequence[Result]) -> Result:
    """Return the result with the highest mean Dice; an undefined Dice counts as the lowest."""
    return max(results, key=lambda result: -1 if mean(result.dice) != mean(result.dice) else mean(result.dice))


def table(results: Sequence[Result]) -> str:
    """Return aligned columns of text, with a row for each input size and layer."""
    rows = [("size", "layer", "guide Dice", "of each seed", "seconds")]
    for r in results:
        seeds = " ".join(f"{dice:.3f}" for dice in r.dice)
        rows.append((str(r.size), str(r.layer), f"{mean(r.dice):.3f}", seeds, f"{r.seconds:.0f}"))
    return align(rows)


def plot(results: Sequence[Result], title: str, file: Path) -> None:
    """Draw the guide's Dice against the layer, with a line for each size and a dot for each seed."""
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
    """Write probe.txt and probe.png over those with fewer results.

    Raises:
        GuidinoError: If they cannot be written; the files of before stay then.
    """
    with filled_folder(folder) as new:
        (new / "probe.txt").write_text(f"{title}\n\n{table(results)}\n", encoding="utf-8")
        plot(results, title, new / "probe.png")
