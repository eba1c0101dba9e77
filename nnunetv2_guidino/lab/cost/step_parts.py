"""Time the parts that a guide adds to a training: encoder, gates, terms of the loss, picture."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunetv2_guidino.lab.cost.random_training import BareEncoder, dummy_batch
from nnunetv2_guidino.lab.cost.rounds import interleaved
from nnunetv2_guidino.model.losses.target import read_target
from nnunetv2_guidino.model.losses.terms import Step
from nnunetv2_guidino.training.progress import CASES, GuideProgress


def parts(trainer: Any, rounds: int) -> dict[str, float]:
    """Return the median seconds of each part of an eager step, and of one picture of guide_progress.png.

    Args:
        trainer: The initialized trainer of a guided network.
        rounds: The number of times that each part is timed.
    """
    network, loss, device = trainer.bare_network(), trainer.loss, trainer.device
    batch = dummy_batch(trainer)
    data, target = batch["data"], batch["target"]

    def forward_and_backward(forward: Callable[[], Tensor | Sequence[Tensor]]) -> None:
        with torch.autocast(device.type, enabled=device.type == "cuda"):
            output = forward()
            means = [tensor.float().mean() for tensor in ([output] if isinstance(output, Tensor) else output)]
        torch.autograd.backward(means)

    with torch.no_grad():
        *segmentations, logits = network(data)
    for output in (*segmentations, logits):
        output.requires_grad_()
    step = Step(segmentations, logits, read_target(target[0], loss.label_manager), loss.label_manager, loss.in_plane)
    terms: dict[str, Callable[[], Any]] = {
        f"{name} loss": partial(forward_and_backward, partial(loss._calculate[name], step)) for name in loss.weights
    }
    if loss.late_fusion is not None:
        terms["late fusion's pixels"] = partial(loss.samples.add, segmentations[0], logits, *step.annotation)
    with tempfile.TemporaryDirectory() as folder:
        actions: dict[str, Callable[[], Any]] = {
            "encoder": partial(BareEncoder(trainer), data, training=True),
            "guided network": partial(forward_and_backward, partial(network, data)),
            "planned network": partial(forward_and_backward, partial(network.network, data)),
            **terms,
            "picture": _picture(trainer, Path(folder)),
        }
        middle = {name: median(seconds) for name, seconds in interleaved(actions, rounds, device).items()}
    gates = middle["guided network"] - middle["planned network"] - middle["encoder"]
    return {
        "encoder": middle["encoder"],
        "TokenBook and gates": max(0.0, gates),
        **{name: middle[name] for name in terms},
        "a picture": middle["picture"],
    }


def _picture(trainer: Any, folder: Path) -> Callable[[], None]:
    network, size = trainer.bare_network(), trainer.configuration_manager.patch_size[-2:]
    images = np.random.default_rng(0).normal(size=(CASES, trainer.num_input_channels, *size)).astype(np.float32)
    progress = GuideProgress(folder, images, images[:, 0] > 1, epochs=1, finished=0)
    progress.record(network, 0)
    names = [f"{part}_{name}_loss" for part in ("train", "val") for name in trainer.loss.terms]
    history = {name: [0.5] for name in (*names, "guide_dice", "mean_fg_dice", "prototypes_in_use")}
    return lambda: progress.draw(history, network.tokenbook.weights.shape[1])
