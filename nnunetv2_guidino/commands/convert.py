"""Convert a data set, from the folder or zip as one downloads it, to a folder nnU-Net can plan.

Everything is checked before anything is written. The data set appears complete or not at all.
"""

from __future__ import annotations

import argparse
import importlib

CONVERTERS = {
    "kvasir-seg": ("Dataset501_KvasirSEG", "Kvasir-SEG: polyps in colonoscopy images"),
    "isic2017": ("Dataset502_ISIC2017", "ISIC 2017: skin lesions in dermoscopy images"),
    "tn3k": ("Dataset503_TN3K", "TN3K: thyroid nodules in ultrasound images"),
    "folder": ("folder", "any pair of folders images/ and masks/"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(required=True, metavar="CONVERTER")
    for name, (module_name, summary) in CONVERTERS.items():
        module = importlib.import_module(f"nnunetv2_guidino.dataset_conversion.{module_name}")
        converter = subparsers.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(converter)
        converter.set_defaults(convert=module.run)


def run(args: argparse.Namespace) -> None:
    args.convert(args)
