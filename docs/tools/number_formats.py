"""Measure how much bfloat16 in the encoder changes the guides and predictions of a trained model, on a CPU that has it.

python docs/tools/number_formats.py MODEL IMAGES LABELS [COUNT]

MODEL is …/DatasetXXX/Trainer__Plans__2d; IMAGES and LABELS are imagesTr and labelsTr with PNG files. COUNT cases
(default 32), at equal distances in the order of their names, are predicted in both formats.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from nnunetv2_guidino.model.encoders.precision import has_bfloat16
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder
from nnunetv2_guidino.model.losses.dice import dice
from nnunetv2_guidino.tools.guide.predictor import Guided, GuidePredictor


def dice_of(segmentation: np.ndarray, truth: np.ndarray) -> float:
    """Return the Dice of all foreground."""
    found, there = segmentation > 0, truth > 0
    return dice(int((found & there).sum()), int((found & ~there).sum()), int((~found & there).sum()))


def predict(predictor: GuidePredictor, files: list[Path], bfloat16: bool) -> Guided:
    """Predict in one of the formats. In training mode, the encoder computes in bfloat16."""

    def switch(encoder: TokenEncoder, _: object) -> None:
        encoder.train(bfloat16)

    encoder = predictor.predictor.network.network.token_encoder
    encoder.memory = None  # it would return tokens of the other format
    with encoder.register_forward_pre_hook(switch):
        return predictor.predict(files)


def main(model: Path, images: Path, labels: Path, count: int) -> None:
    assert has_bfloat16(torch.device("cpu")), "this CPU, or this torch, has no bfloat16 of its own"
    predictor = GuidePredictor(model, None, "checkpoint_final.pth", "cpu")
    names = sorted(file.name.removesuffix(".png") for file in labels.glob("*.png"))
    guides, scores = [], []
    for name in names[:: max(1, len(names) // count)][:count]:
        files = sorted(images.glob(f"{name}_????.png"))
        truth = predictor.reader().read_seg(str(labels / f"{name}.png"))[0][0]
        found = [predict(predictor, files, bfloat16) for bfloat16 in (False, True)]
        guides.append(np.abs(found[0].guide - found[1].guide))
        scores.append([dice_of(one.segmentation, truth) for one in found])
    moved, difference = np.stack(guides), np.diff(scores, axis=1)
    print(f"{len(scores)} cases; guides differ by {moved.mean():.5f} in the mean and by {moved.max():.4f} at most;")
    print(f"Dice by {difference.mean():+.5f} in the mean and by {np.abs(difference).max():.5f} in one case at most")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), count=int(sys.argv[4]) if len(sys.argv) > 4 else 32)
