"""Convert a data set, from the folder or zip as one downloads it, to a folder nnU-Net can plan.

Everything is checked before anything is written. The data set appears complete or not at all.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.conversion.conversion import RefusedError, convert
from nnunetv2_guidino.tools.conversion.converters import CONVERTERS, converter_text, load_converter
from nnunetv2_guidino.tools.conversion.dataset import Dataset, Report
from nnunetv2_guidino.tools.conversion.labels import Labels
from nnunetv2_guidino.tools.conversion.photographs import convert_images
from nnunetv2_guidino.tools.conversion.predictions import convert_predictions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the converters of `guidino convert`, the way to images and predictions, and their options."""
    subparsers = parser.add_subparsers(required=True, metavar="CONVERTER")
    for name, (_, summary) in CONVERTERS.items():
        dataset = load_converter(name)
        converter = subparsers.add_parser(name, help=summary, description=converter_text(name))
        _add_options(converter, dataset)
        converter.set_defaults(dataset=dataset, convert=_run_converter)
    _add_images(subparsers.add_parser("images", help="images without masks, for a trained model to predict"))
    _add_predictions(subparsers.add_parser("predictions", help="predictions to masks of 0 and 255, and overlays"))


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write images without masks as a trained model takes them; names and sizes are kept."
    parser.add_argument("source", metavar="SRC", type=_path, nargs="+", help="images, folders of images, or zips")
    parser.add_argument("-m", dest="model", metavar="MODEL_FOLDER", type=_path, required=True, help="nnU-Net's")
    parser.add_argument("-o", dest="output", metavar="FOLDER", type=_path, required=True, help="must not exist yet")
    _add_processes(parser)
    parser.set_defaults(convert=_run_images)


def _add_predictions(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write predictions as masks of 0 and 255 in the images' sizes, and outlines on the images."
    parser.add_argument("source", metavar="PREDICTIONS", type=_path, help="nnU-Net's folder of predictions")
    parser.add_argument("-i", dest="images", metavar="IMAGES", type=_path, required=True, help="what was predicted")
    parser.add_argument("-o", dest="output", metavar="FOLDER", type=_path, required=True, help="must not exist yet")
    _add_processes(parser)
    parser.set_defaults(convert=_run_predictions)


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-np", dest="processes", metavar="N", type=int, default=_usable_cpus(), help="default: %(default)s"
    )


def _add_options(parser: argparse.ArgumentParser, dataset: Dataset) -> None:
    parser.add_argument("source", metavar="SRC", type=_path, nargs="+", help="extracted folder, its parent, or zip(s)")
    parser.add_argument(
        "-d", dest="dataset_id", metavar="ID", type=int, default=dataset.id, help="default: %(default)s"
    )
    parser.add_argument("-o", dest="output", metavar="NNUNET_RAW", type=_path, help="default: $nnUNet_raw")
    parser.add_argument("--overwrite", action="store_true", help="replace the data set if it exists")
    _add_processes(parser)
    parser.add_argument("--resize", metavar=("H", "W"), type=int, nargs=2, help="to H × W pixels, e.g. 256 256")
    parser.add_argument("--preview", metavar="FILE.png", type=_path, help="draw three of the converted cases")
    parser.add_argument(
        "--exif",
        choices=("stored", "upright"),
        help="where only one of image and mask has an EXIF orientation and both ways fit: how the masks were drawn",
    )
    parser.add_argument(
        "--cut", metavar="LEVEL", type=float, help="masks are foreground above it; default: decided from all masks"
    )
    split = parser.add_mutually_exclusive_group()
    split.add_argument(
        "--split",
        metavar="FILE",
        type=_path,
        nargs="+",
        default=(),
        help="train.txt, val.txt, test.txt with a case per line, one json with these keys, or a splits_final.json",
    )
    if dataset.split:
        split.add_argument(
            "--no-split",
            action="store_true",
            help="nnU-Net's own five folds instead of the set's split; a published test part stays one",
        )
    parser.add_argument(
        "--labels",
        metavar="NAME=VALUE,…",
        type=_labels,
        help="labels and their values in the masks, grey values or colours as #ff0000; background=VALUE where that is "
        f"not 0; a NAME alone: two-level masks (default: {', '.join(dataset.labels) or 'foreground'})",
    )
    if not dataset.name:
        parser.add_argument("--name", default="", help="of the data set; default: SRC's")


def _usable_cpus() -> int:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, 8)


def _labels(text: str) -> Labels:
    try:
        return Labels.parse(text)
    except GuidinoError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _path(text: str) -> Path:
    if not text:  # as an unset variable leaves it; Path("") is the current folder
        raise argparse.ArgumentTypeError("is empty")
    return Path(text)


def run(args: argparse.Namespace) -> None:
    """Convert, and print the report."""
    try:
        args.convert(args)
    except OSError as error:
        raise GuidinoError(f"{error.filename or args.source}: {error.strerror or error}") from error


def _run_images(args: argparse.Namespace) -> None:
    report = convert_images(args.source, args.model, args.output, args.processes)
    for note in report.notes:
        print(note, file=sys.stderr)
    print(f"{report.cases} images are in {report.folder}")
    print(*(f"Next: {command}" for command in report.next_commands), sep="\n")


def _run_predictions(args: argparse.Namespace) -> None:
    report = convert_predictions(args.source, args.images, args.output, args.processes)
    for note in report.notes:
        print(note, file=sys.stderr)
    print(f"{report.cases} predictions are in {report.folder}: masks of 0 and 255, and overlays to look at")


def _run_converter(args: argparse.Namespace) -> None:
    try:
        report = convert(
            args.source,
            args.dataset,
            args.output,
            dataset_id=args.dataset_id,
            name=getattr(args, "name", ""),
            labels=args.labels,
            cut=args.cut,
            exif=args.exif,
            split_lists=args.split,
            published_split=not getattr(args, "no_split", False),
            resize=tuple(args.resize) if args.resize else None,
            preview=args.preview,
            overwrite=args.overwrite,
            processes=args.processes,
        )
    except RefusedError as refused:
        _print_findings(refused.report)
        print(*refused.report.problems, sep="\n", file=sys.stderr)
        raise
    _print_findings(report)
    print(f"masks: {report.masks}")
    print(f"{report.training} training and {report.test} test cases are in {report.folder}")
    print(f"Next: {report.next_command}")


def _print_findings(report: Report) -> None:
    for line in (*report.notes, *(f"warning: {warning}" for warning in report.warnings)):
        print(line, file=sys.stderr)
