"""Score predictions against references: Dice, IoU, HD95, normalised surface Dice, precision and recall of every class
in every case, 2D or 3D. Either of two folders (-gt, -pred), or of the validation that nnU-Net ran after training (-m).
Writes summary.json (nnU-Net's, with more metrics), cases.csv, report.md and report.html.
"""

from __future__ import annotations

import argparse

from nnunetv2_guidino.commands.signature import Option, options_of
from nnunetv2_guidino.errors import GuidinoError

MODULE = "nnunetv2_guidino.tools.evaluation.evaluation"

add_arguments = options_of(
    f"{MODULE}:evaluate_model",
    f"{MODULE}:evaluate",
    f"{MODULE}:Scoring",
    references="-gt DIR",
    predictions=Option("-pred DIR", default=None, help="predictions, one for each reference"),
    model_folder=Option("-m MODEL_FOLDER", default=None),
    folds="-f FOLD",
    output=Option("-o DIR", help="output. With -m: default MODEL_FOLDER/evaluation"),
    images=Option("-i DIR", help="images CASE_0000.*, to draw the worst and best cases on"),
    labels=Option("--labels NAME=VALUE,…", help="a region: NAME=1+2. Default: those of the nearest dataset.json"),
    predicted_labels="--labels-pred NAME=VALUE,…",
    nsd_tolerance="--nsd-tolerance X",
    empty=Option("--empty", choices=("penalize", "ignore")),
    processes="-np N",
)


def run(args: argparse.Namespace) -> None:
    """Score, write, and print the place of the report."""
    from nnunetv2_guidino.tools.evaluation.evaluation import Scoring, evaluate, evaluate_model
    from nnunetv2_guidino.tools.evaluation.scored_labels import parse_labels

    labels = parse_labels(args.labels) if args.labels is not None else None
    predicted = parse_labels(args.predicted_labels, "--labels-pred") if args.predicted_labels is not None else None
    scoring = Scoring(args.nsd_tolerance, args.empty, predicted, args.processes)
    output, shared = args.output, {"images": args.images, "labels": labels, "scoring": scoring}
    if args.model_folder:
        if args.predictions:
            raise GuidinoError("-m scores the model's own validation: give either -m or -pred")
        output = output or args.model_folder / "evaluation"
        result = evaluate_model(args.model_folder, output, folds=args.folds, references=args.references, **shared)
    else:
        if not (args.references and args.predictions and output) or args.folds:
            raise GuidinoError("give -gt, -pred and -o to compare two folders, or -m (and -f) for a trained model")
        result = evaluate(args.references, args.predictions, output, **shared)
    print(f"classes: {', '.join(result.summary['classes'].values())} (from {result.labels_from})")
    for name, count in result.left_out.items():
        cases = f"{count} case{'s' * (count > 1)}"
        print(f"{name}: {cases} left out of its means, where reference and prediction are empty")
    print(f"{output}: report.html, report.md, cases.csv, summary.json")
