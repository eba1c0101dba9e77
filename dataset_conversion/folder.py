"""Any folder with images/NAME and masks/NAME, where the file endings may differ.

Without values in --labels the masks have two levels and are cut between them. With values they are label maps.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run as a script: the clone need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nnunetv2_guidino.conversion import conversion
from nnunetv2_guidino.conversion.conversion import Case, Dataset, Split
from nnunetv2_guidino.conversion.image_files import SourceFile

DEFAULT_ID = 500


def parse_labels(text: str) -> dict[str, int | None]:
    """'polyp' is one binarised label; 'polyp=1,tool=2' gives the values in the masks."""
    labels: dict[str, int | None] = {}
    for item in text.split(","):
        match = re.fullmatch(r"\s*([^=]*[^=\s])\s*(?:=\s*(\d+)\s*)?", item)
        if not match or match[1] in ("background", *labels) or (match[2] and not 1 <= int(match[2]) <= 255):
            raise argparse.ArgumentTypeError(f"{item!r}: expected name=value with a new name and a value from 1 to 255")
        labels[match[1]] = int(match[2]) if match[2] else None
    values = list(labels.values())
    if len(set(values)) < len(values) or (None in values and len(values) > 1):
        raise argparse.ArgumentTypeError(f"{text!r}: each of several labels needs a value of its own")
    return labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    conversion.add_arguments(parser, DEFAULT_ID)
    parser.add_argument("--name", help="of the data set; default: SRC's")
    parser.add_argument(
        "--labels",
        metavar="NAME=VALUE,…",
        type=parse_labels,
        default="foreground",
        help="labels and their values in the masks; a NAME alone: two-level masks (default: %(default)s)",
    )
    parser.add_argument("--split", metavar="FILE", type=Path, nargs="+", help=conversion.SPLIT_HELP)


def run(args: argparse.Namespace) -> None:
    def split_cases(cases: list[Case], _: list[SourceFile], problems: list[str]) -> Split:
        return conversion.read_split(args.split, cases, problems) if args.split else Split()

    source = args.source[0].absolute()
    values = tuple(args.labels.values())
    dataset = Dataset(
        id=DEFAULT_ID,
        name=re.sub(r"\W+", "_", args.name or source.name.removesuffix(".zip")),
        image=conversion.IMAGES,
        mask=conversion.MASKS,
        layout="images/NAME.png (or jpg, bmp, tif, gif) and masks/NAME.png",
        labels=tuple(args.labels),
        values=None if None in values else values,
        may_be_grey=True,
        licence="unknown",
        description=f"Converted from the folder {source.name}.",
    )
    conversion.convert(args, dataset, split_cases)


if __name__ == "__main__":
    from nnunetv2_guidino.cli import main

    sys.exit(main(["convert", "folder", *sys.argv[1:]]))
