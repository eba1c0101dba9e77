"""Train a plain and a guided nnU-Net on the same images and compare them, without a hub, a GPU or data of your own.

The images are lesion-like phantoms on real photographs, the guide's encoder is a real DINOv2 ViT-S. Everything runs
through nnU-Net's own commands, in a folder of its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_guidino.bounds import COUNT, SEED
from nnunetv2_guidino.commands.options import add_device, whole

if TYPE_CHECKING:
    from nnunetv2_guidino.lab.demo.run_demo import Demonstration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `guidino demo`."""
    parser.add_argument(
        "-o",
        dest="output",
        type=Path,
        default=Path("guidino_demo"),
        metavar="DIR",
        help="output folder (default: %(default)s); if it exists, DIR_2, DIR_3, ... is made instead",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="use the pairs in DIR/images and DIR/masks (0/1 or 0/255), reduced to the demo's size, "
        "instead of generated phantoms; a fifth is held out",
    )
    parser.add_argument("--epochs", type=whole(COUNT), default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--iterations",
        type=whole(COUNT),
        default=20,
        metavar="M",
        help="training iterations per epoch (default: %(default)s)",
    )
    add_device(parser)
    parser.add_argument(
        "--seed", type=whole(SEED), default=0, help="of the images and of both trainings (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Train, compare, and print the comparison."""
    from nnunetv2_guidino.lab.demo.run_demo import demo

    shown = demo(args.output, args.data, args.epochs, args.iterations, args.device, args.seed)
    print(table(shown))
    print(f"\n{shown.folder / 'comparison.png'}")


def table(shown: Demonstration) -> str:
    """Dice, IoU and seconds of both models."""
    import numpy as np

    lines = [f"\n{'':8}{'Dice':>8}{'IoU':>8}{'training':>12}{'prediction':>12}"]
    for name, result in shown.results.items():
        lines.append(
            f"{name:8}{np.nanmean(result.dice):8.3f}{np.nanmean(result.iou):8.3f}"
            f"{result.training_seconds:10.0f} s{result.prediction_seconds:10.0f} s"
        )
    return "\n".join(lines)
