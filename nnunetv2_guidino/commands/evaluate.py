"""Score predictions against references: Dice, IoU, HD95, normalised surface Dice, precision and recall of every class
in every case, 2D or 3D. Either of two folders (-gt, -pred), or of the validation that nnU-Net ran after training (-m).
Writes summary.json (nnU-Net's, with more metrics), cases.csv, report.md and report.html.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.evaluation.evaluation import Evaluation, Scoring, evaluate, evaluate_model
from nnunetv2_guidino.tools.evaluation.scored_labels import parse_labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `guidino evaluate`."""
    parser.add_argument(
        "-gt", type=Path, metavar="DIR", help="references. With -m: default gt_segmentations of nnU-Net"
    )
    parser.add_argument("-pred", type=Path, metavar="DIR", help="predictions, one for each reference")
    parser.add_argument("-m", type=Path, metavar="MODEL_FOLDER", help="…/DatasetXXX/Trainer__Plans__configuration")
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds of the model. Default: all numbered ones")
    parser.add_argument("-o", type=Path, metavar="DIR", help="output. With -m: default MODEL_FOLDER/evaluation")
    parser.add_argument("-i", type=Path, metavar="DIR", help="images CASE_0000.*, to draw the worst and best cases on")
    parser.add_argument(
        "--labels",
        metavar="NAME=VALUE,…",
        help="a region: NAME=1+2. Default: from dataset.json in or above the folders",
    )
    parser.add_argument(
        "--labels-pred",
        metavar="NAME=VALUE,…",
        help="where other values stand for the classes in the predictions, as 255 for 1. Default: the same",
    )
    parser.add_argument(
        "--nsd-tolerance",
        type=float,
        metavar="X",
        help="in the unit of the spacing. Default: 1 pixel (smallest spacing)",
    )
    parser.add_argument(
        "--empty",
        choices=("penalize", "ignore"),
        default="penalize",
        help="if only one of reference and prediction is empty, what is undefined gets its worst value (HD95: the "
        "image's diagonal) or is left out of the mean. Default: penalize",
    )
    parser.add_argument(
        "-np",
        type=int,
        metavar="N",
        help="processes. Default: nnU-Net's (nnUNet_def_n_proc, or 8), or fewer for want of cores or memory",
    )


def run(args: argparse.Namespace) -> None:
    """Score, write, and say where the report is."""
    labels = parse_labels(args.labels) if args.labels is not None else None
    predicted = parse_labels(args.labels_pred, "--labels-pred") if args.labels_pred is not None else None
    scoring = Scoring(args.nsd_tolerance, args.empty, predicted, args.np)
    if args.m:
        if args.pred:
            raise GuidinoError("-m scores the model's own validation: give either -m or -pred")
        output = args.o or args.m / "evaluation"
        result = evaluate_model(
            args.m, output, folds=args.f, references=args.gt, images=args.i, labels=labels, scoring=scoring
        )
    else:
        if not (args.gt and args.pred and args.o) or args.f:
            raise GuidinoError("give -gt, -pred and -o to compare two folders, or -m (and -f) for a trained model")
        output = args.o
        result = evaluate(args.gt, args.pred, output, images=args.i, labels=labels, scoring=scoring)
    _say(result, output)


def _say(result: Evaluation, output: Path) -> None:
    print(f"classes: {', '.join(result.summary['classes'].values())} (from {result.labels_from})")
    for name, count in result.left_out.items():
        print(
            f"{name}: {count} case{'s' * (count > 1)} left out of its means, where reference and prediction are empty"
        )
    print(f"{output}: report.html, report.md, cases.csv, summary.json")
