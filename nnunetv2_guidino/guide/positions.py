"""Where a guide acts in the segmentation network: the contract, and the places that follow it.

A place is a subclass of Position here or in a file of its own, with its line in lists.GATES.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nnunetv2_guidino import lists
from nnunetv2_guidino.architectures.contract import Description, decode, encode
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.guide.gates import Gate

Outputs = Tensor | list[Tensor]  # of a segmentation network


class Position(nn.Module):
    """Runs a segmentation network with its gates in place, and holds them: one for each gated feature.

    A place says whether it `needs_features`, that is a network which can be taken apart at its features; the channels
    of what it gates; and how the network runs then.

    Args:
        form: How the guide acts.
        channels: Of each gated feature, as `gated_channels` returns them.
        image_channels: The first channels of a patch; behind them lies what a cascade's previous stage says.

    Shape:
        network, patch (B, n, …), guide (B, 1, …) in [0, 1] -> the network's outputs
    """

    needs_features: ClassVar[bool] = False

    def __init__(self, form: type[Gate], channels: Sequence[int | None], image_channels: int):
        super().__init__()
        self.image_channels = image_channels
        self.gates = nn.ModuleList(form(count) for count in channels)

    @classmethod
    def gated_channels(cls, description: Description, image_channels: int) -> Sequence[int | None]:
        """The channels of each gated feature, None where the network does not tell them."""
        raise NotImplementedError

    def forward(self, network: Any, patch: Tensor, guide: Tensor) -> Outputs:
        raise NotImplementedError


class Skips(Position):
    """Gates every feature of the encoder, the coarsest too."""

    needs_features = True

    @classmethod
    def gated_channels(cls, description: Description, image_channels: int) -> Sequence[int | None]:
        return description.features

    def forward(self, network: Any, patch: Tensor, guide: Tensor) -> Outputs:
        features = encode(network, patch)
        # Counted from the coarsest, whichever of them are gated.
        first = len(features) - len(self.gates)
        for level, gate in enumerate(self.gates, start=first):
            features[level] = gate(features[level], guide)
        return decode(network, features, patch.shape[2:])


class Bottleneck(Skips):
    """Gates the coarsest feature of the encoder alone."""

    @classmethod
    def gated_channels(cls, description: Description, image_channels: int) -> Sequence[int | None]:
        return description.features[-1:]


class Input(Position):
    """Gates the image's channels; what a cascade's previous stage says is no feature of the image."""

    @classmethod
    def gated_channels(cls, description: Description, image_channels: int) -> Sequence[int | None]:
        return [image_channels]

    def forward(self, network: Any, patch: Tensor, guide: Tensor) -> Outputs:
        image, previous = patch.tensor_split([self.image_channels], dim=1)
        outputs: Outputs = network(torch.cat((self.gates[0](image, guide), previous), dim=1))
        return outputs


def gated(description: Description, gate: str, gating: str, image_channels: int) -> Position:
    """The gates of a network: `gate` says where, `gating` how.

    Raises:
        GuidinoError: If the network cannot be gated there, or does not tell the channels that the form needs to know.
    """
    position: type[Position] = lists.find(lists.GATES, gate, "guidino.gate").load()
    form: type[Gate] = lists.find(lists.GATINGS, gating, "guidino.gating").load()
    asked = f'guidino.gate is "{gate}", but {description.name}'
    if description.gates is not None and gate not in description.gates:
        raise GuidinoError(f"{asked} takes it at " + " or ".join(f'"{name}"' for name in description.gates) + " only")
    if position.needs_features and not description.features:
        raise GuidinoError(
            f'{asked} has no encoder that tells its output_channels, or no decoder, to gate between; use "input"'
        )
    channels = position.gated_channels(description, image_channels)
    if form.needs_channels and None in channels:
        raise GuidinoError(
            f'guidino.gating is "{gating}", which needs to know how many channels it gates, and {description.name} '
            'does not tell; use "residual"'
        )
    return position(form, channels, image_channels)
