"""Convert a data set, from the folder or zip as one downloads it, to a folder nnU-Net can plan.

Everything is checked before anything is written. The data set appears complete or not at all.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from functools import partial

from nnunetv2_guidino.commands.signature import Action, Option, options_of
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lists import CONVERTERS

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PROCESSES = Option("-np N", default=min(CPUS, 8), help="processes")
CONVERT = "nnunetv2_guidino.tools.conversion.conversion:convert"


def _add_options(parser: argparse.ArgumentParser, name: str) -> None:
    from nnunetv2_guidino.tools.conversion.converters import converter_text, load_converter
    from nnunetv2_guidino.tools.conversion.labels import Labels

    def labels(text: str) -> Labels:
        try:
            return Labels.parse(text)
        except GuidinoError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    dataset = load_converter(name)
    parser.description = converter_text(name)
    parser.set_defaults(dataset=dataset)
    options_of(
        CONVERT,
        sources=Option("SRC", help="extracted folder, its parent, or zip(s)"),
        dataset_id=Option("-d ID", default=dataset.id, help="number of the data set"),
        output="-o NNUNET_RAW",
        overwrite=Option("--overwrite", help="replace the data set if it exists"),
        processes=PROCESSES,
        resize=Option("--resize H W", type=int, nargs=2),
        preview="--preview FILE.png",
        exif=Option("--exif", choices=("stored", "upright")),
        cut="--cut LEVEL",
        labels=Option(
            "--labels NAME=VALUE,…",
            type=labels,
            help="labels and their values in the masks, grey values or colours as #ff0000; background=VALUE if that is "
            f"not 0; a NAME alone: two-level masks (default: {', '.join(dataset.labels) or 'foreground'})",
        ),
    )(parser)
    lists = "train.txt, val.txt, test.txt with a case per line, one json with these keys, or a splits_final.json"
    split = parser.add_mutually_exclusive_group()
    options_of(CONVERT, split_lists=Option("--split FILE", help=lists))(split)
    if dataset.split:
        own = "nnU-Net's own five folds instead of the set's split; a published test part stays one"
        options_of(CONVERT, published_split=Option("--no-split", help=own))(split)
    if not dataset.name:
        options_of(CONVERT, name=Option("--name NAME", help="of the data set; default: SRC's"))(parser)


def _convert(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.tools.conversion.conversion import RefusedError, convert

    args.resize = tuple(args.resize) if args.resize else None
    try:
        report = convert(**vars(args))
    except RefusedError as refused:
        _print_lines(refused.report.notes, (f"warning: {line}" for line in refused.report.warnings))
        _print_lines(refused.report.problems)
        raise
    _print_lines(report.notes, (f"warning: {line}" for line in report.warnings))
    print(f"masks: {report.masks}")
    print(f"{report.training} training and {report.test} test cases are in {report.folder}")
    print(f"Next: {report.next_command}")


def _convert_images(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.tools.conversion.photographs import convert_images

    report = convert_images(**vars(args))
    _print_lines(report.notes)
    print(f"{report.cases} images are in {report.folder}")
    print(*(f"Next: {command}" for command in report.next_commands), sep="\n")


def _convert_predictions(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.tools.conversion.predictions import convert_predictions

    report = convert_predictions(**vars(args))
    _print_lines(report.notes)
    print(f"{report.cases} predictions are in {report.folder}: masks of 0 and 255, and overlays to look at")


def _print_lines(*several: Iterable[str]) -> None:
    for lines in several:
        for line in lines:
            print(line, file=sys.stderr)


def actions() -> dict[str, Action]:
    """Return the converters, and the commands for images without masks and for predictions."""
    return {
        **{name: Action(text, partial(_add_options, name=name), _convert) for name, (_, text) in CONVERTERS.items()},
        "images": Action(
            "images without masks, for a trained model to predict; names and sizes are kept",
            options_of(
                "nnunetv2_guidino.tools.conversion.photographs:convert_images",
                sources="SRC",
                model="-m MODEL_FOLDER",
                output="-o FOLDER",
                processes=PROCESSES,
            ),
            _convert_images,
        ),
        "predictions": Action(
            "predictions to masks of 0 and 255 in the images' sizes, and outlines on the images",
            options_of(
                "nnunetv2_guidino.tools.conversion.predictions:convert_predictions",
                predictions="PREDICTIONS",
                images="-i IMAGES",
                output="-o FOLDER",
                processes=PROCESSES,
            ),
            _convert_predictions,
        ),
    }
