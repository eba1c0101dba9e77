"""Compare the guide for three inputs of the encoder: z-scores, [0, 1], and z-scores with the data set's statistics.

python docs/tools/encoder_input.py ENCODER IMAGES MASKS SIDE SIZE [SEEDS]

Each image in IMAGES has a mask of the same name in MASKS. Both are resized to SIDE × SIDE pixels, and the encoder's
input has SIZE × SIZE pixels. For each of nnU-Net's five folds and each seed (default 3), a TokenBook is trained on the
tokens as in `guidino encoder probe`. The output is CSV, in points: means over cases and seeds of the guide's Dice at ½
and of its AUC over a case's pixels, and their differences from z-scores, with 95 % intervals.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from nnunetv2.utilities.crossval_split import generate_crossval_split
from number_formats import dice_of
from PIL import Image
from sklearn.metrics import roc_auc_score

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.lab.probe.probing import train_tokenbook
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder
from nnunetv2_guidino.model.guide.resizing import interpolate
from nnunetv2_guidino.model.guide.tokenbook import TokenBook
from nnunetv2_guidino.model.losses.target import Annotation
from nnunetv2_guidino.tools.evaluation.intervals import difference_intervals, mean_intervals

STEPS = 320
METRICS = ["dice", "auc"]


def read(folder: Path, names: list[str], mode: str, side: int) -> np.ndarray:
    """Return the images of these names in [0, 1], (cases, channels, side, side)."""
    files = {file.stem: file for file in folder.iterdir()}
    pictures = [np.asarray(Image.open(files[name]).convert(mode).resize((side, side))) for name in names]
    return np.stack(pictures).reshape(len(names), side, side, -1).transpose(0, 3, 1, 2) / np.float32(255)


def inputs(images: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
    """Return the encoder's normalisation scheme and its images for each kind of input."""
    mean, spread = images.mean((2, 3), keepdims=True), images.std((2, 3), keepdims=True)
    scores = (images - mean) / spread
    return {
        "z-scores": ("ZScoreNormalization", scores),
        "[0, 1]": ("RGBTo01Normalization", images),
        "z-scores with the data set's statistics": ("RGBTo01Normalization", scores * spread.mean(0) + mean.mean(0)),
    }


@torch.no_grad()
def encode(encoder: Path, scheme: str, images: np.ndarray, size: int) -> torch.Tensor:
    """Return the tokens of each image, in float16."""
    token_encoder = TokenEncoder(read_encoder_config(encoder, None), None, [scheme] * 3, size, max_input_size=size)
    token_encoder.load_pretrained(encoder, encoder.name)
    return torch.cat([token_encoder(torch.from_numpy(image[None])).half() for image in images])


def scores_of(tokens: torch.Tensor, truth: Annotation, names: list[str], seeds: int) -> pd.DataFrame:
    """Return the scores of each case, in the fold that it validates, with each seed."""
    rows, config = [], GuideConfig()
    for fold in generate_crossval_split(names):
        train, validation = ([names.index(name) for name in fold[part]] for part in ("train", "val"))
        for seed in range(seeds):
            torch.manual_seed(seed)
            book = TokenBook(tokens.shape[1], config.prototypes, config.similarity, config.readout)
            train_tokenbook(book, tokens[train], Annotation(truth.masks[train], truth.valid[train]), STEPS)
            for case in validation:
                mask = truth.masks[case, 0].numpy()
                with torch.no_grad():
                    guide = interpolate(book(tokens[[case]].float()), mask.shape)[0, 0].numpy()
                found = {"dice": dice_of(guide > 0.5, mask), "auc": roc_auc_score(mask.ravel(), guide.ravel())}
                rows.append({"case": names[case], "run": seed, "class": "foreground", **found})
    return pd.DataFrame(rows)


def main(encoder: Path, images: Path, masks: Path, side: int, size: int, seeds: int) -> None:
    names = sorted(file.stem for file in masks.iterdir())
    foreground = torch.from_numpy(read(masks, names, "L", side) > 0.5)
    truth = Annotation(foreground, torch.ones_like(foreground))
    scores = {
        name: scores_of(encode(encoder, scheme, pictures, size), truth, names, seeds)
        for name, (scheme, pictures) in inputs(read(images, names, "RGB", side)).items()
    }
    first, rows = scores["z-scores"], []
    for name, table in scores.items():
        means = mean_intervals(table, METRICS).set_index("metric").groupby(level=0).first()
        differences = difference_intervals(table, first, METRICS).set_index("metric")
        for metric in METRICS:
            row = {"data": images.parent.name, "pixels": size, "input": name, "metric": metric, "cases": len(names)}
            row |= {"seeds": seeds, "mean": table[metric].mean()}
            row |= {key: means.loc[metric, key] for key in ("low", "high")}
            row |= {"difference": row["mean"] - first[metric].mean()}
            row |= {f"difference_{key}": differences.loc[metric, key] for key in ("low", "high")}
            rows.append({key: 100 * value if isinstance(value, float) else value for key, value in row.items()})
    pd.DataFrame(rows).round(2).to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    folders, numbers = [Path(text) for text in sys.argv[1:4]], [int(text) for text in sys.argv[4:]]
    main(*folders, *numbers[:2], *(numbers[2:] or [3]))
