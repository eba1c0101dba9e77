"""Export the LoRA adapters of a trained model."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    export = actions.add_parser("export-lora", help="write a trained model's LoRA adapters in peft's format")
    export.add_argument("model_folder", type=Path, help="TRAINER__PLANS__CONFIGURATION in nnUNet_results")
    export.add_argument("-o", dest="output", type=Path, required=True, help="folder to write")
    export.add_argument("-f", dest="fold", default="0", help="fold (default: 0)")
    export.add_argument("-chk", dest="checkpoint", default="checkpoint_final.pth", help="default: %(default)s")
    export.set_defaults(action=_export_lora)


def run(args: argparse.Namespace) -> None:
    # The modules behind the actions import torch, so each is imported when it is asked for.
    args.action(args)


def _export_lora(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.encoders.export_lora import export_lora

    layers = export_lora(args.model_folder, args.output, args.fold, args.checkpoint)
    print(f"Wrote the adapters of {layers} layers to {args.output}; load them with peft's PeftModel.from_pretrained")
