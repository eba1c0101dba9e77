"""Score predictions against references: Dice, IoU, HD95, normalised surface Dice, precision and recall of every class
in every case, 2D or 3D. Either of two folders (-gt, -pred), or of the validation that nnU-Net ran after training (-m).
Writes summary.json (nnU-Net's, with more metrics), cases.csv, report.md and report.html.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nnunetv2.configuration import default_num_processes

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.evaluation.cases import Case, find_reader, guess_ending, pair_folders, pair_folds, with_images
from nnunetv2_guidino.evaluation.labels import LabelSet, find_dataset_json, label_set, parse_labels, read_json
from nnunetv2_guidino.evaluation.report import summarize, write_report
from nnunetv2_guidino.evaluation.scoring import Scorer, score_cases


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("-np", type=int, metavar="N", help="processes. Default: nnU-Net's (nnUNet_def_n_proc, or 8)")


def run(args: argparse.Namespace) -> None:
    if args.nsd_tolerance is not None and args.nsd_tolerance < 0:
        raise GuidinoError(f"--nsd-tolerance {args.nsd_tolerance}: expected 0 or more")
    cases, labels, dataset_json, output = _model(args) if args.m else _folders(args)
    if args.i:
        cases = with_images(cases, args.i, dataset_json["file_ending"])
    reader = find_reader(dataset_json, cases[0].reference)
    scorer = Scorer(reader, labels, args.empty, args.nsd_tolerance)
    results = score_cases(scorer, cases, args.np or default_num_processes)
    tolerance = "1 pixel" if args.nsd_tolerance is None else args.nsd_tolerance
    summary = summarize(results, labels, {"empty": args.empty, "nsd_tolerance": tolerance})
    write_report(output, summary, cases, reader, labels)
    print(f"{output}: report.html, report.md, cases.csv, summary.json")


Job = tuple[list[Case], LabelSet, dict[str, Any], Path]


def _folders(args: argparse.Namespace) -> Job:
    if not (args.gt and args.pred and args.o) or args.f:
        raise GuidinoError("give -gt, -pred and -o to compare two folders, or -m (and -f) for a trained model")
    if args.labels:
        labels = parse_labels(args.labels)
        dataset_json: dict[str, Any] = {"file_ending": guess_ending(args.gt)}
    else:
        dataset_json = find_dataset_json(args.gt, args.pred)
        labels = label_set(dataset_json["labels"], "dataset.json")
    return pair_folders(args.gt, args.pred, dataset_json["file_ending"]), labels, dataset_json, args.o


def _model(args: argparse.Namespace) -> Job:
    if args.pred:
        raise GuidinoError("-m scores the model's own validation: give either -m or -pred")
    dataset_json, plans = (read_json(args.m / name) for name in ("dataset.json", "plans.json"))
    labels = parse_labels(args.labels) if args.labels else label_set(dataset_json["labels"], f"{args.m}/dataset.json")
    cases = pair_folds(args.m, args.f, args.gt, plans["dataset_name"], dataset_json["file_ending"])
    return cases, labels, dataset_json, args.o or args.m / "evaluation"
