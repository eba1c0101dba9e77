"""Load pretrained weights of timm's networks into the parts of our networks."""

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

Part = tuple[nn.Module, str]  # a part of our network, and the prefix of its tensors in timm's weights


def load_parts(folder: Path, name: str, parts: Sequence[Part], first_convolution: str, channels: int) -> EncoderSource:
    """Load pretrained weights into the parts of a network, and describe them.

    Weights of other parts stay unused. The weight of the first convolution, which is for three channels, is summed for
    one channel and repeated for more, as timm does it.

    Args:
        folder: Folder with safetensors that find_encoder returned.
        name: Name that the user gave.
        parts: Parts of our network, whose tensors are all looked up in the weights.
        first_convolution: Name of the first convolution's weight in the weights.
        channels: Number of input channels of our network.

    Raises:
        GuidinoError: If a tensor is missing or has another shape. The error names it, and the network is unchanged.
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
    if "layers.0.downsample.norm.weight" in weights:  # Swin's authors count a merging as part of the stage before it
        return {re.sub(r"(?<=^layers\.)\d+(?=\.downsample)", _next, key): weights[key] for key in weights}
    return weights


def _next(number: re.Match[str]) -> str:
    return str(int(number[0]) + 1)


def _fitting(folder: Path, part: nn.Module, prefix: str, theirs: dict[str, Tensor]) -> dict[str, Any]:
    found = {}
    for key, ours in part.state_dict().items():
        name = f"{prefix}{key}"
        if name not in theirs and key.endswith("num_batches_tracked"):  # older files have no counters
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
