"""Where the time that a guide adds to a training goes: encoder, gates, terms of the loss, picture."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from nnunetv2_guidino.model.losses.target import read_target
from nnunetv2_guidino.model.losses.terms import Step
from nnunetv2_guidino.tools.doctor.random_training import BareEncoder
from nnunetv2_guidino.training.progress import CASES, GuideProgress

Time = Callable[[dict[str, Callable[[], Any]]], dict[str, list[float]]]


def parts(trainer: Any, batch: dict[str, Any], time: Time) -> dict[str, float]:
    """Median seconds of each part of an eager step, and of one picture of guide_progress.png.

    Args:
        trainer: Initialized, of a guided network.
        batch: On its device.
        time: Measures seconds of each action, once a round.
    """
    network, loss, device = trainer.bare_network(), trainer.loss, trainer.device
    data, target = batch["data"], batch["target"]

    def under_autocast(action: Callable[[], Any]) -> Callable[[], Any]:
        def act() -> None:
            with torch.autocast(device.type, enabled=device.type == "cuda"):
                result = action()
                total = sum(tensor.float().mean() for tensor in result)
            total.backward()

        return act

    encode = BareEncoder(trainer)
    with torch.no_grad():
        *segmentations, logits = network(data)
    for output in (*segmentations, logits):
        output.requires_grad_()
    step = Step(segmentations, logits, read_target(target[0], loss.label_manager), loss.label_manager, loss.in_plane)

    def term(name: str) -> Callable[[], Any]:
        return under_autocast(lambda: [loss._calculate[name](step)])

    terms = {f"{name} loss": term(name) for name in loss.weights}
    if loss.late_fusion is not None:
        terms["late fusion's pixels"] = partial(loss.samples.add, segmentations[0], logits, *step.annotation)
    with tempfile.TemporaryDirectory() as folder:
        seconds = time(
            {
                "encoder": lambda: encode(data, training=True),
                "guided network": under_autocast(lambda: network(data)),
                "planned network": under_autocast(lambda: network.network(data)),
                **terms,
                "picture": _picture(trainer, Path(folder)),
            }
        )
    middle = {name: median(values) for name, values in seconds.items()}
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
