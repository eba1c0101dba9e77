"""Convert a data set, from the folder or zip as one downloads it, to a folder nnU-Net can plan.

Everything is checked before anything is written. The data set appears complete or not at all.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

from nnunetv2_guidino.conversion.convert import RefusedError, convert
from nnunetv2_guidino.conversion.converters import CONVERTERS, load_converter
from nnunetv2_guidino.conversion.dataset import Dataset
from nnunetv2_guidino.conversion.labels import parse_labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(required=True, metavar="CONVERTER")
    for name, (_, summary) in CONVERTERS.items():
        dataset, text = load_converter(name)
        converter = subparsers.add_parser(name, help=summary, description=text)
        _add_options(converter, dataset)
        converter.set_defaults(dataset=dataset)


def _add_options(parser: argparse.ArgumentParser, dataset: Dataset) -> None:
    parser.add_argument("source", metavar="SRC", type=Path, nargs="+", help="extracted folder, its parent, or zip(s)")
    parser.add_argument(
        "-d", dest="dataset_id", metavar="ID", type=int, default=dataset.id, help="default: %(default)s"
    )
    parser.add_argument("-o", dest="output", metavar="NNUNET_RAW", type=Path, help="default: $nnUNet_raw")
    parser.add_argument("--overwrite", action="store_true", help="replace the data set if it exists")
    parser.add_argument(
        "-np", dest="processes", metavar="N", type=int, default=_usable_cpus(), help="default: %(default)s"
    )
    parser.add_argument("--resize", metavar=("H", "W"), type=int, nargs=2, help="to H × W pixels, e.g. 256 256")
    parser.add_argument("--preview", metavar="FILE.png", type=Path, help="draw three of the converted cases")
    split = parser.add_mutually_exclusive_group()
    split.add_argument(
        "--split",
        metavar="FILE",
        type=Path,
        nargs="+",
        default=(),
        help="published lists: train.txt, val.txt, test.txt with a case per line, or one json with these keys",
    )
    if dataset.split:
        split.add_argument(
            "--no-split",
            action="store_true",
            help="nnU-Net's own five folds instead of the set's split; a published test part stays one",
        )
    if not dataset.name:
        parser.add_argument("--name", help="of the data set; default: SRC's")
        parser.add_argument(
            "--labels",
            metavar="NAME=VALUE,…",
            type=_labels,
            default="foreground",
            help="labels and their values in the masks; a NAME alone: two-level masks (default: %(default)s)",
        )


def _usable_cpus() -> int:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, 8)


def _labels(text: str) -> dict[str, int | None]:
    try:
        return parse_labels(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run(args: argparse.Namespace) -> None:
    try:
        report = convert(
            args.source,
            args.dataset if args.dataset.name else _described(args),
            args.output,
            dataset_id=args.dataset_id,
            split_lists=args.split,
            published_split=not getattr(args, "no_split", False),
            resize=tuple(args.resize) if args.resize else None,
            preview=args.preview,
            overwrite=args.overwrite,
            processes=args.processes,
        )
    except RefusedError as refused:
        print(*refused.report.notes, *refused.report.problems, sep="\n", file=sys.stderr)
        raise
    if report.notes:
        print(*report.notes, sep="\n", file=sys.stderr)
    print(
        f"{report.training} training and {report.test} test cases are in {report.folder}\nNext: {report.next_command}"
    )


def _described(args: argparse.Namespace) -> Dataset:
    """The data set of a folder, as the command line describes it."""
    source = args.source[0].absolute()
    values = tuple(args.labels.values())
    return replace(
        args.dataset,
        name=re.sub(r"\W+", "_", args.name or source.name.removesuffix(".zip")),
        labels=tuple(args.labels),
        values=None if None in values else values,
        description=f"Converted from the folder {source.name}.",
    )
