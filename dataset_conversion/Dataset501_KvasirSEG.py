"""Kvasir-SEG: 1,000 colonoscopy images with one polyp mask each, from the folder or zip as published.

The data set has no official split. The default split draws 80 % of the cases for training, 10 % for validation (fold 0)
and 10 % for testing, with a fixed seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # as a script, in a clone that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from nnunetv2_guidino.tools.conversion.dataset import IMAGES, MASKS, Dataset, Split
from nnunetv2_guidino.tools.conversion.sources import SourceFile, SourcePair

SEED = 12345  # the seed of nnU-Net's own splits


def split_80_10_10(pairs: list[SourcePair], _: list[SourceFile], problems: list[str]) -> Split:
    """Draw a tenth of the cases for testing and a tenth for validation from the sorted names."""
    # numpy promises that the numbers of RandomState never change
    names = np.random.RandomState(SEED).permutation(sorted(pair.name for pair in pairs)).tolist()
    tenth = max(1, round(len(names) / 10))
    if 0 < len(names) < 3:
        problems.append(f"{len(names)} cases cannot be split into training, validation and test; pass --no-split")
    test, val, train = names[:tenth], names[tenth : 2 * tenth], names[2 * tenth :]
    return Split(frozenset(test), ({"train": sorted(train), "val": sorted(val)},))


DATASET = Dataset(
    id=501,
    name="KvasirSEG",
    image=IMAGES,
    mask=MASKS,
    layout="images/ID.jpg and masks/ID.jpg",
    labels=("polyp",),
    split=split_80_10_10,
    counts={"": 1000},
    reference="https://datasets.simula.no/kvasir-seg/ Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MMM 2020",
    licence="research and educational use; commercial use needs the authors' written permission",
    release="2019-11",
    description="Polyps in colonoscopy images.",
)


if __name__ == "__main__":
    from nnunetv2_guidino.cli import main

    sys.exit(main(["convert", "kvasir-seg", *sys.argv[1:]]))
