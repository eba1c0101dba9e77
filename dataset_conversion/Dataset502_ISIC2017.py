"""ISIC 2017, part 1: dermoscopy images with one lesion mask each, from the six folders or zips as published.

The converter keeps the official split: fold 0 trains on Training (2,000) and validates on Validation (150); Test_v2
(600) goes to imagesTs and labelsTs.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # as a script, in a clone that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nnunetv2_guidino.tools.conversion.dataset import Dataset, Split
from nnunetv2_guidino.tools.conversion.sources import SourceFile, SourcePair

COUNTS = {"Training": 2000, "Validation": 150, "Test_v2": 600}
PART = r"ISIC-2017_(?P<part>Training|Validation|Test_v2)"


def official_split(pairs: list[SourcePair], _: list[SourceFile], problems: list[str]) -> Split:
    """Train fold 0 on Training, validate it on Validation, and keep Test_v2 for testing."""
    names = {part: sorted(pair.name for pair in pairs if pair.part == part) for part in COUNTS}
    fold = {"train": names["Training"], "val": names["Validation"]}
    # the official fold needs both parts
    return Split(frozenset(names["Test_v2"]), (fold,) if fold["train"] and fold["val"] else ())


DATASET = Dataset(
    id=502,
    name="ISIC2017",
    # the digits exclude ISIC_*_superpixels.png
    image=rf"{PART}_Data/(?P<stem>ISIC_\d+)(?i:\.jpe?g)",
    mask=rf"{PART}_Part1_GroundTruth/(?P<stem>ISIC_\d+)(?i:_segmentation\.png)",
    layout="ISIC-2017_{Training,Validation,Test_v2}_Data and ISIC-2017_{…}_Part1_GroundTruth",
    labels=("lesion",),
    split=official_split,
    test_part="Test_v2",
    counts=COUNTS,
    reference="https://challenge.isic-archive.com/data/#2017 Codella et al., arXiv:1710.05006",
    licence="CC-0",
    release="2017",
    description="Skin lesions in dermoscopy images: part 1 of the ISIC 2017 challenge.",
)


if __name__ == "__main__":
    from nnunetv2_guidino.cli import main

    sys.exit(main(["convert", "isic2017", *sys.argv[1:]]))
