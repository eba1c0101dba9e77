"""The demo's images as an nnU-Net raw data set."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import write_json
from nnunetv2_guidino.lab.demo.phantoms import SIZE, phantoms
from nnunetv2_guidino.tools.conversion.checking import inspect, judge, try_all
from nnunetv2_guidino.tools.conversion.dataset import IMAGES, MASKS, Dataset, Report
from nnunetv2_guidino.tools.conversion.masks import TWO_LEVELS, MaskReading
from nnunetv2_guidino.tools.conversion.sources import SourceFile, SourcePair
from nnunetv2_guidino.tools.conversion.writing import Treatment, read_case

FEWEST_PAIRS = 10
HELDOUT_FRACTION = 0.2
FOLDER = Dataset(900, "GuidinoDemo", IMAGES, MASKS, "images/NAME.png and masks/NAME.png", ("lesion",))


class Pair(NamedTuple):
    """An image and its mask."""

    name: str
    image: np.ndarray  # (H, W, 3) of uint8
    mask: np.ndarray  # (H, W) of uint8, 0 and 1


def phantom_cases(part: str, count: int, seed: int) -> list[Pair]:
    """Generate the pairs of the part "train" or "heldout"."""
    return [Pair(f"{part}_{index:03d}", *pair) for index, pair in enumerate(phantoms(part, count, seed))]


def read_cases(folder: Path, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Read the pairs of images/ and masks/ with the same stem; return shuffled training and held-out cases.

    `guidino convert folder` reads pairs in the same way: one rule for all masks, and the same treatment of EXIF.

    Raises:
        GuidinoError: If a file has no counterpart or cannot be read, or if there are too few pairs.
    """
    files = {kind: _by_stem(folder / kind) for kind in ("images", "masks")}
    names = sorted(files["images"])
    if unpaired := sorted(set(names) ^ set(files["masks"])):
        raise GuidinoError(f"{folder}: {unpaired[0]} ({len(unpaired)} in all) is not in both images/ and masks/.")
    if len(names) < FEWEST_PAIRS:
        raise GuidinoError(
            f"{folder}: expected at least {FEWEST_PAIRS} images in images/, each with a mask of the same name in "
            f"masks/, found {len(names)}."
        )
    np.random.default_rng(seed).shuffle(names)
    pairs = [
        SourcePair(name, "", *(SourceFile(folder, f"{kind}/{files[kind][name].name}") for kind in ("images", "masks")))
        for name in names
    ]
    heldout = round(len(pairs) * HELDOUT_FRACTION)
    reading = _reading_of_masks(folder, pairs, frozenset(names[:heldout]))
    cases = [_read_case(pair, reading) for pair in pairs]
    return cases[heldout:], cases[:heldout]


def _reading_of_masks(folder: Path, pairs: list[SourcePair], heldout: frozenset[str]) -> MaskReading:
    """Return the rule by which all masks are read; raise GuidinoError with the first problem of the pairs."""
    check = partial(inspect, reading=TWO_LEVELS, may_be_grey=False, exif=None)
    inspections, problems = try_all(check, pairs, processes=1, title="checking")
    report = Report(folder, problems=problems)
    reading = judge(FOLDER, pairs, inspections, heldout, report)
    if report.problems:
        more = f" ({len(report.problems)} problems in all)" if len(report.problems) > 1 else ""
        raise GuidinoError(
            f"{report.problems[0]}{more}. The demo has no options for masks and orientations; `guidino convert folder "
            f"{shlex.quote(str(folder))}` has, and shows how such data are used"
        )
    return reading


def _read_case(pair: SourcePair, reading: MaskReading) -> Pair:
    """Read a pair and reduce its shorter side to SIZE pixels at most, so that the demo ends while the user waits."""
    image, mask = read_case(pair, Treatment(reading, "RGB"))
    scale = SIZE / min(image.size)
    if scale < 1:
        reduced = (round(image.width * scale), round(image.height * scale))
        image, mask = image.resize(reduced, Image.Resampling.BOX), mask.resize(reduced, Image.Resampling.NEAREST)
    return Pair(pair.name, np.asarray(image), np.asarray(mask))


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("[!.]*")):
        if path.stem in files:
            raise GuidinoError(f"{path}: {files[path.stem].name} has the same name but for its ending; remove one")
        files[path.stem] = path
    return files


def write_dataset(folder: Path, train: Iterable[Pair], heldout: Iterable[Pair]) -> None:
    """Write imagesTr, labelsTr, imagesTs, labelsTs and dataset.json into `folder`."""
    count = 0
    for part, cases in (("Tr", train), ("Ts", heldout)):
        for kind in ("images", "labels"):
            (folder / f"{kind}{part}").mkdir(parents=True)
        for case in cases:
            Image.fromarray(case.image).save(folder / f"images{part}" / f"{case.name}_0000.png")
            Image.fromarray(case.mask).save(folder / f"labels{part}" / f"{case.name}.png")
            count += part == "Tr"
    description = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": count,
        "file_ending": ".png",
    }
    write_json(folder / "dataset.json", description)
