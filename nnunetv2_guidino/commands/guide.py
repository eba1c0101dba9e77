"""Show what the guide of a trained model sees. Every image goes through nnU-Net's own preprocessing, sliding window and
mirroring. Writes the guide of each case in the images' format and size (NIfTI and TIFF: 0…1, PNG: 0…255), a panel of
image, guide and prediction for each case, and contact sheets; with -gt also the truth, and the guide's Dice and AUC.
"""

from __future__ import annotations

import argparse

from nnunetv2_guidino.bounds import STEP_SIZE
from nnunetv2_guidino.commands.options import device, fold, number
from nnunetv2_guidino.commands.signature import Option, options_of

add_arguments = options_of(
    "nnunetv2_guidino.tools.guide.guide_export:guide",
    model="-m MODEL_FOLDER",
    images="-i IMAGES",
    output="-o OUT",
    references="-gt DIR",
    previous_predictions="-prev_stage_predictions DIR",
    folds=Option("-f FOLD", type=fold),
    checkpoint="-chk FILE",
    device=device,
    step_size=Option("-step_size X", type=number(STEP_SIZE)),
    mirroring=Option("--disable_tta", help="nnU-Net's: no mirroring"),
)


def run(args: argparse.Namespace) -> None:
    """Write the guides and print what they score."""
    from nnunetv2_guidino.tools.guide.guide_export import guide, summary

    shown = guide(**vars(args))
    if args.references:
        print(summary(shown.table))
    print(f"{shown.folder}: guides, panels, {', '.join(shown.sheets)}{', guide.csv' if args.references else ''}")
