"""TN3K: ultrasound images with thyroid nodule masks, 2,879 for training and 614 for testing.

The converter keeps the five official folds. The json files beside the images hold positions in the numerically sorted
names of the trainval images.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # as a script, in a clone that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nnunetv2_guidino.tools.conversion.dataset import IMAGE_SUFFIX, Dataset, Fold, Split
from nnunetv2_guidino.tools.conversion.sources import SourceFile, SourcePair


def official_folds(pairs: list[SourcePair], files: list[SourceFile], problems: list[str]) -> Split:
    """Return the five published folds and the test part."""
    trainval = sorted(
        (pair for pair in pairs if pair.part == "trainval"), key=lambda pair: int(pair.name.rpartition("_")[2])
    )
    names = [pair.name for pair in trainval]
    folds: list[Fold] = []
    for file in sorted(files, key=lambda file: file.name):
        try:
            positions = json.loads(file.read())
            if not isinstance(positions, dict) or not positions.keys() >= {"train", "val"}:
                raise ValueError("expected an object with the lists train and val")
            if sorted(positions["train"] + positions["val"]) != list(range(len(names))):
                raise ValueError(
                    f"is no fold of the {len(names)} trainval images here; pass --no-split to ignore the folds"
                )
            folds.append({role: [names[position] for position in positions[role]] for role in ("train", "val")})
        except (OSError, RecursionError, TypeError, ValueError) as error:
            problems.append(f"{file}: {error!s}")
    if len(files) != 5:
        problems.append(f"found {len(files)} of the five tn3k-trainval-foldK.json; pass --no-split to ignore the folds")
    return Split(frozenset(pair.name for pair in pairs if pair.part == "test"), tuple(folds))


DATASET = Dataset(
    id=503,
    name="TN3K",
    image=rf"(?P<part>trainval|test)-image/(?P<stem>\d+){IMAGE_SUFFIX}",
    mask=rf"(?P<part>trainval|test)-mask/(?P<stem>\d+){IMAGE_SUFFIX}",
    layout="{trainval,test}-image/NNNN.jpg and {trainval,test}-mask/NNNN.jpg",
    labels=("nodule",),
    case_name="{part}_{stem}",
    split=official_folds,
    test_part="test",
    split_files=r"tn3k-trainval-fold[0-4]\.json",
    counts={"trainval": 2879, "test": 614},
    may_be_grey=True,
    reference="https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation Gong et al., ISBI 2021",
    licence="none stated for the images; their authors offer them for research",
    release="2021",
    description="Thyroid nodules in ultrasound images.",
)


if __name__ == "__main__":
    from nnunetv2_guidino.cli import main

    sys.exit(main(["convert", "tn3k", *sys.argv[1:]]))
