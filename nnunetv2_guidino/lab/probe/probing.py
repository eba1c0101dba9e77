"""Train a TokenBook alone on a fold's tokens, for each layer and input size of an encoder, and score its guide."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import Tensor
from tqdm import tqdm

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.probe.fold_patches import Fold, patches
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.source import find_encoder
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder
from nnunetv2_guidino.model.guide.tokenbook import TokenBook
from nnunetv2_guidino.model.losses.dice import dice
from nnunetv2_guidino.model.losses.guide_loss import guide_counts, guide_dice_loss, guide_loss
from nnunetv2_guidino.model.losses.target import Annotation, token_target

STEPS_PER_EPOCH = 40
BATCH = 12


@dataclass(frozen=True)
class Result:
    """The guide's Dice at threshold 0.5 on the validation patches, one for each seed, from one layer and size."""

    size: int
    layer: int
    dice: list[float]
    seconds: float


class CachedTokens:
    """The tokens of one part of a fold from several layers, in a file: every patch passes the encoder once.

    Args:
        fold: The fold.
        part: "train" or "val".
        per_case: Patches of each case.
        encoder: Encoder that concatenates the tokens of the layers.
        layers: Number of layers.
        file: File for the tokens.
    """

    def __init__(self, fold: Fold, part: str, per_case: int, encoder: TokenEncoder, layers: int, file: Path):
        count = len(fold.cases[part]) * per_case
        rows, columns = (side // encoder.patch_size for side in encoder.input_size(*fold.patch_size))
        shape = (layers, count, encoder.channels // layers, rows, columns)
        _check_space(file.parent, math.prod(shape) * np.dtype(np.float16).itemsize)
        self.tokens = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
        self.truth = Annotation(*torch.empty(2, count, 1, *fold.patch_size, dtype=torch.bool))
        device = next(encoder.parameters()).device
        bar = tqdm(
            patches(fold, part, per_case), total=count, desc=f"tokens, {part}", unit="patch", leave=False, disable=None
        )
        for i, (image, mask, valid) in enumerate(bar):
            with torch.no_grad():
                tokens = encoder(image[None].to(device))[0]
            self.tokens[:, i] = tokens.unflatten(0, (layers, -1)).half().cpu().numpy()
            self.truth.masks[i], self.truth.valid[i] = mask, valid

    def of(self, layer: int, device: torch.device) -> tuple[Tensor, Annotation]:
        """Return a layer's tokens (N, C, h, w) in float16 and the annotation of the N patches."""
        truth = Annotation(*(mask.to(device) for mask in self.truth))
        return torch.from_numpy(np.array(self.tokens[layer])).to(device), truth


def _check_space(folder: Path, needed: int) -> None:
    # A file that is mapped into memory ends the process without a message when its disk is full.
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise GuidinoError(
            f"{folder} has {free / 2**30:.1f} GB free, and the tokens need {needed / 2**30:.1f}: set TMPDIR to a "
            "folder on a larger disk, or probe fewer layers at a time (--layers)"
        )


def train_tokenbook(book: TokenBook, tokens: Tensor, truth: Annotation, steps: int) -> None:
    """Train a TokenBook on random batches, with nnU-Net's optimizer and schedule."""
    optimizer = torch.optim.SGD(book.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    schedule = PolyLRScheduler(optimizer, 1e-2, -(-steps // STEPS_PER_EPOCH))
    for step in range(steps):
        if step % STEPS_PER_EPOCH == 0:
            schedule.step(step // STEPS_PER_EPOCH)
        batch = torch.randint(len(tokens), (BATCH,))
        optimizer.zero_grad()
        logits = book.logits(tokens[batch].float())
        target = token_target(truth.masks[batch], truth.valid[batch], logits.shape[2:])
        loss = guide_loss(logits, target) + guide_dice_loss(logits, target)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(book.parameters(), 12)
        optimizer.step()


@torch.no_grad()
def guide_dice(book: TokenBook, tokens: Tensor, truth: Annotation) -> float:
    """Return the guide's Dice over all patches together, as the training logs it."""
    total = {"guide_tp": 0, "guide_fp": 0, "guide_fn": 0}
    for start in range(0, len(tokens), BATCH):
        batch = slice(start, start + BATCH)
        of_batch = Annotation(truth.masks[batch], truth.valid[batch])
        for name, count in guide_counts(book(tokens[batch].float()), of_batch).items():
            total[name] += int(count)
    return dice(total["guide_tp"], total["guide_fp"], total["guide_fn"])


@dataclass(frozen=True)
class Effort:
    """The effort of a measurement.

    Args:
        seeds: Number of TokenBooks that are trained per layer.
        steps: Training steps of each TokenBook.
        per_case: Patches of each case.
        device: Device of the trainings.
    """

    seeds: int
    steps: int
    per_case: int
    device: torch.device


def measure(
    fold: Fold, config: GuideConfig, layers: Sequence[int] | None, sizes: Sequence[int], effort: Effort
) -> Iterator[Result]:
    """Train a TokenBook on each layer's tokens at each input size.

    Args:
        fold: Cases to train and score on.
        config: Guide whose encoder, prototypes, similarity and readout are used.
        layers: Layers of the encoder, from 1; None for all.
        sizes: Sides of the encoder's input in pixels.
        effort: Seeds, steps, patches and device.

    Raises:
        GuidinoError: If the encoder is missing or has no such layer.
    """
    folder = find_encoder(config.encoder)
    if layers is None:
        layers = range(1, encoder_depth(folder) + 1)
    layers = sorted(layers)
    config = replace(config, layer=layers)
    for size in sizes:
        replace(config, min_input_size=size)  # refuses a wrong size before time is spent on the others
    architecture = read_encoder_config(folder, config.layer)
    for size in sizes:
        encoder = TokenEncoder(architecture, config.layer, fold.normalization_schemes, size, max_input_size=size)
        encoder.load_pretrained(folder, config.encoder)
        encoder.to(effort.device)
        with tempfile.TemporaryDirectory() as cache:
            train, validation = (
                CachedTokens(fold, part, effort.per_case, encoder, len(layers), Path(cache) / f"{part}.npy")
                for part in ("train", "val")
            )
            for i, layer in enumerate(layers):
                start = time.perf_counter()
                data = train.of(i, effort.device), validation.of(i, effort.device)
                scores = _dice_of_seeds(config, encoder.channels // len(layers), *data, effort)
                yield Result(size, layer, scores, time.perf_counter() - start)


def _dice_of_seeds(
    config: GuideConfig,
    channels: int,
    train: tuple[Tensor, Annotation],
    validation: tuple[Tensor, Annotation],
    effort: Effort,
) -> list[float]:
    scores = []
    for seed in range(effort.seeds):
        torch.manual_seed(seed)
        book = TokenBook(channels, config.prototypes, config.similarity, config.readout).to(effort.device)
        train_tokenbook(book, *train, effort.steps)
        scores.append(guide_dice(book, *validation))
    return scores


def encoder_depth(folder: Path) -> int:
    """Return the number of blocks of the encoder in a folder with config.json."""
    architecture = read_encoder_config(folder, None)
    with torch.device("meta"):
        return TokenEncoder(architecture, None, ["ZScoreNormalization"] * 3, 1).last_layer
