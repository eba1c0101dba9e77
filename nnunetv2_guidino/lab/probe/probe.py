"""Measure how good a guide would be, before any training, for each layer and input size of an encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from nnunetv2_guidino.bounds import COUNT, FOLD, PIXELS
from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.devices import usable_device
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.probe.fold_patches import Fold, read_fold
from nnunetv2_guidino.lab.probe.probe_report import write_results
from nnunetv2_guidino.lab.probe.probing import Effort, Result, measure
from nnunetv2_guidino.nnunet.folders import preprocessed_folder
from nnunetv2_guidino.nnunet.plans_file import PlansFile


@dataclass(frozen=True)
class Probe:
    """A checked measurement; `results` runs it.

    Args:
        title: Encoder, data set, configuration and fold.
        fold: Cases to train and score on.
        config: Encoder, prototypes, similarity and read-out of the guide.
        layers: Layers of the encoder, from 1; None for all.
        sizes: Sides of the encoder's input in pixels.
        effort: Seeds, steps and patches.
        output: Folder for probe.txt and probe.png; None: none is written.
    """

    title: str
    fold: Fold
    config: GuideConfig
    layers: Sequence[int] | None
    sizes: Sequence[int]
    effort: Effort
    output: Path | None

    def results(self) -> Iterator[Result]:
        """Yield the guide's Dice from each layer and size, and write the files after each.

        Raises:
            GuidinoError: If the encoder is missing or has no such layer.
        """
        results: list[Result] = []
        for result in measure(self.fold, self.config, self.layers, self.sizes, self.effort):
            results.append(result)
            if self.output:
                write_results(results, self.title, self.output)
            yield result


def prepare(
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
    """Check everything that `probe` needs, without measuring anything.

    Args and errors are those of `probe`.
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
) -> list[Result]:
    """Train a TokenBook alone on a fold's tokens, from each layer at each input size, and score its guide.

    Args:
        dataset: Name or number of a data set that nnU-Net has preprocessed.
        configuration: nnU-Net's, such as "2d".
        fold: A numbered one.
        plans: Name of the plans.
        encoder: Name on the hub, or folder; default: the plans', else GUIDINO_ENCODER.
        layers: From 1; default: all.
        sizes: Of the encoder's input, sides in pixels of a square of its area; default: the plans' min_input_size.
        seeds: TokenBooks per layer.
        steps: Of each one's training.
        patches: Per case.
        device: "cpu", "cuda" or "mps".
        output: Folder for probe.txt and probe.png.

    Returns:
        A result for each size and layer.

    Raises:
        GuidinoError: If there are no such data, plans, fold, encoder or layer, or a number is out of range.
    """
    prepared = prepare(
        dataset, configuration, fold, plans, encoder, layers, sizes, seeds, steps, patches, device, output
    )
    return list(prepared.results())


def best(results: Sequence[Result]) -> Result:
    """Return the result with the highest mean Dice; an undefined Dice counts as the lowest."""
    return max(results, key=lambda result: -1 if mean(result.dice) != mean(result.dice) else mean(result.dice))
