"""Copy weights of timm's networks from their folder into the parts of ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.damage import check_finite
from nnunetv2_guidino.model.encoders.source import EncoderSource, describe

Part = tuple[nn.Module, str]  # ours, and the prefix of its tensors there


def load_parts(folder: Path, name: str, parts: Sequence[Part], first_convolution: str, channels: int) -> EncoderSource:
    """Copy pretrained weights into the parts of a network, and describe them.

    Weights of other parts stay unused. The first convolution has seen three channels; it is summed up for one channel
    and repeated for more, as timm does it.

    Args:
        folder: A folder with safetensors, as find_encoder returns it.
        name: The name that the user gave.
        parts: The parts of our network; the folder must hold each of their tensors.
        first_convolution: The name of the first convolution's weight in the folder.
        channels: The number of our input's channels.

    Raises:
        GuidinoError: If a tensor is missing or has another shape. The error names the tensor, and nothing is changed.
    """
    theirs = _weights(folder)
    parameters = sum(tensor.numel() for tensor in theirs.values())
    if (first := theirs.get(first_convolution)) is not None and first.shape[1:2] == (3,):
        theirs[first_convolution] = adapt_input_conv(channels, first)
    found = [_fitting(folder, part, prefix, theirs) for part, prefix in parts]
    for (part, _), tensors in zip(parts, found, strict=True):
        part.load_state_dict(tensors)
    return describe(folder, name, parameters)


def _weights(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            weights |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise GuidinoError(f"{file} cannot be read: {error}") from error
    check_finite(weights, f"encoder {folder}")
    if "layers.0.downsample.norm.weight" in weights:  # Swin's authors count a merging to the stage before it
        return {re.sub(r"(?<=^layers\.)\d+(?=\.downsample)", _next, key): weights[key] for key in weights}
    return weights


def _next(number: re.Match[str]) -> str:
    return str(int(number[0]) + 1)


def _fitting(folder: Path, part: nn.Module, prefix: str, theirs: dict[str, Tensor]) -> dict[str, Any]:
    found = {}
    for key, ours in part.state_dict().items():
        name = f"{prefix}{key}"
        if name not in theirs and key.endswith("num_batches_tracked"):  # older files have no such counters
            found[key] = torch.zeros_like(ours)
            continue
        there = f"has shape {tuple(theirs[name].shape)}" if name in theirs else "is missing"
        if name not in theirs or theirs[name].shape != ours.shape:
            raise GuidinoError(
                f"encoder {folder}: the weights do not fit: {name} {there}, expected {tuple(ours.shape)}; take others, "
                "or plan with --set architecture.pretrained=null"
            )
        found[key] = theirs[name]
    return found
