"""Train a plain and a guided nnU-Net on the same images and compare them, without a hub, a GPU or data of your own.

The images are lesion-like phantoms on real photographs, the guide's encoder is a real DINOv2 ViT-S. Everything runs
through nnU-Net's own commands, in a folder of its own.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nnunetv2_guidino.bounds import SEED
from nnunetv2_guidino.commands.options import count, device, whole
from nnunetv2_guidino.commands.signature import Option, options_of

if TYPE_CHECKING:
    from nnunetv2_guidino.lab.demo.run_demo import Demonstration


add_arguments = options_of(
    "nnunetv2_guidino.lab.demo.run_demo:demo",
    output="-o DIR",
    data="--data DIR",
    epochs=Option("--epochs N", type=count),
    iterations=Option("--iterations M", type=count),
    device=device,
    seed=Option("--seed N", type=whole(SEED)),
)


def run(args: argparse.Namespace) -> None:
    """Train, compare, and print the comparison."""
    from nnunetv2_guidino.lab.demo.run_demo import demo

    shown = demo(**vars(args))
    print(table(shown))
    print(f"\n{shown.folder / 'comparison.png'}")


def table(shown: Demonstration) -> str:
    """Return a table of Dice, IoU and seconds of both models."""
    import numpy as np

    lines = [f"\n{'':8}{'Dice':>8}{'IoU':>8}{'training':>12}{'prediction':>12}"]
    for name, result in shown.results.items():
        lines.append(
            f"{name:8}{np.nanmean(result.dice):8.3f}{np.nanmean(result.iou):8.3f}"
            f"{result.training_seconds:10.0f} s{result.prediction_seconds:10.0f} s"
        )
    return "\n".join(lines)
