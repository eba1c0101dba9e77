"""What late fusion is worth where its weight is chosen on other cases than those that it is scored on.

python tests/support/fusion_held_out.py IMAGES LABELS MODEL [MODEL …]

IMAGES and LABELS are imagesTr and labelsTr of PNG files, a MODEL is …/DatasetXXX/Trainer__Plans__2d with fold 0. Each
model predicts the cases that validated it with each weight. A thousand times these are parted into two halves: the
weight with the best mean Dice on one is scored on the other. Printed are means over the cases.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from number_formats import dice_of

from nnunetv2_guidino.guide.late_fusion import WEIGHTS
from nnunetv2_guidino.inspection.predictor import GuidePredictor

COLUMNS = [*(f"weight {weight:g}" for weight in WEIGHTS), "chosen on the same cases", "chosen on the others"]
PARTINGS = 1000


def with_each_weight(model: Path, images: Path, labels: Path) -> np.ndarray:
    """Dice of each case with each weight, (cases, weights)."""
    predictor = GuidePredictor(model, ["0"], "checkpoint_final.pth", "cpu")
    weights = predictor.predictor.list_of_parameters[0]
    summary = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
    scores = []
    for case in summary["metric_per_case"]:
        name = Path(case["reference_file"]).stem
        truth = predictor.reader().read_seg(str(labels / f"{name}.png"))[0][0]
        files = sorted(images.glob(f"{name}_????.png"))
        of_case = []
        for weight in WEIGHTS:
            weights["network.late_fusion.weight"].fill_(weight)
            of_case.append(dice_of(predictor.predict(files).segmentation, truth))
        scores.append(of_case)
    return np.array(scores)


def held_out(scores: np.ndarray, random: np.random.Generator) -> float:
    """Mean Dice of a half with the weight that is best on the other."""
    shuffled = random.permutation(scores)
    chosen_on, scored_on = np.array_split(shuffled, 2)
    return float(scored_on[:, chosen_on.mean(axis=0).argmax()].mean())


def show(what: str, values: Sequence[float]) -> None:
    print(what, *(f"{name} {value:.4f}" for name, value in zip(COLUMNS, values, strict=True)), sep=", ")


def main(images: Path, labels: Path, models: list[Path]) -> None:
    rows = []
    for model in models:
        scores = with_each_weight(model, images, labels)
        mean, random = scores.mean(axis=0), np.random.default_rng(0)
        rows.append([*mean, mean.max(), np.mean([held_out(scores, random) for _ in range(PARTINGS)])])
        show(model.name, rows[-1])
    show("mean", np.mean(rows, axis=0))


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]]
    main(paths[0], paths[1], paths[2:])
