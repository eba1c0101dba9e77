"""Show what the guide of a trained model sees. Every image goes through nnU-Net's own preprocessing, sliding window and
mirroring. Writes the guide of each case in the images' format and size (NIfTI and TIFF: 0…1, PNG: 0…255), a panel of
image, guide and prediction for each case, and contact sheets; with -gt also the truth, and the guide's Dice and AUC.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_guidino.bounds import STEP_SIZE
from nnunetv2_guidino.commands.options import add_device, fold, number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `guidino guide`."""
    parser.add_argument(
        "-m", type=Path, metavar="MODEL_FOLDER", required=True, help="…/DatasetXXX/Trainer__Plans__configuration"
    )
    parser.add_argument("-i", type=Path, metavar="IMAGES", required=True, help="images CASE_0000.*, as for prediction")
    parser.add_argument("-o", type=Path, metavar="OUT", required=True, help="output")
    parser.add_argument("-gt", type=Path, metavar="DIR", help="references, one for each image")
    parser.add_argument(
        "-prev_stage_predictions",
        type=Path,
        metavar="DIR",
        help="predictions of a cascade's previous stage, one for each image",
    )
    parser.add_argument("-f", nargs="+", type=fold, metavar="FOLD", help="folds to average. Default: all numbered ones")
    parser.add_argument("-chk", default="checkpoint_final.pth", metavar="FILE", help="default: %(default)s")
    add_device(parser, default="cuda")
    parser.add_argument(
        "-step_size",
        type=number(STEP_SIZE),
        default=0.5,
        metavar="X",
        help="nnU-Net's, of the sliding window. Default: %(default)s",
    )
    parser.add_argument("--disable_tta", action="store_true", help="nnU-Net's: no mirroring")


def run(args: argparse.Namespace) -> None:
    """Write the guides and print what they score."""
    from nnunetv2_guidino.tools.guide.guide_export import guide, summary

    shown = guide(
        model=args.m,
        images=args.i,
        output=args.o,
        references=args.gt,
        previous_predictions=args.prev_stage_predictions,
        folds=args.f,
        checkpoint=args.chk,
        device=args.device,
        step_size=args.step_size,
        mirroring=not args.disable_tta,
    )
    if args.gt:
        print(summary(shown.table))
    print(f"{shown.folder}: guides, panels, {', '.join(shown.sheets)}{', guide.csv' if args.gt else ''}")
