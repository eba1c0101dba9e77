"""Define the positions in the segmentation network at which a guide acts (section 3.1).

A position is a subclass of Position, here or in a file of its own, with a line in lists.GATE_POSITIONS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.guide.gates import Gate
from nnunetv2_guidino.model.networks.contract import Description, decode, encode

Outputs = Tensor | list[Tensor]  # of a segmentation network


class Position(nn.Module):
    """Hold one gate for each gated feature and run a segmentation network with these gates.

    A subclass sets `needs_features` if the network must have an encoder and a decoder to gate between. It returns the
    channels of the gated features in `gated_channels`, and runs the network in `forward`.

    Args:
        form: Class of the gates, which says how the guide acts on a feature.
        channels: Channels of each gated feature, as `gated_channels` returns them.
        image_channels: Number of image channels. They come first in a patch; the output of a cascade's previous stage
            follows them.

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
        """Return the channels of each gated feature, None for a feature whose channels are unknown."""
        raise NotImplementedError

    def forward(self, network: Any, patch: Tensor, guide: Tensor) -> Outputs:
        raise NotImplementedError


class Skips(Position):
    """Gate every feature of the encoder, including the coarsest."""

    needs_features = True

    @classmethod
    def gated_channels(cls, description: Description, image_channels: int) -> Sequence[int | None]:
        return description.features

    def forward(self, network: Any, patch: Tensor, guide: Tensor) -> Outputs:
        features = encode(network, patch)
        # The gates belong to the coarsest features: all of them here, only the last in Bottleneck.
        first = len(features) - len(self.gates)
        for level, gate in enumerate(self.gates, start=first):
            features[level] = gate(features[level], guide)
        return decode(network, features, patch.shape[2:])


class Bottleneck(Skips):
    """Gate only the coarsest feature of the encoder (GuiDINO-U)."""

    @classmethod
    def gated_channels(cls, description: Description, image_channels: int) -> Sequence[int | None]:
        return description.features[-1:]


class Input(Position):
    """Gate the image channels (GuiDINO-W), but not the output of a cascade's previous stage, which is not an image."""

    @classmethod
    def gated_channels(cls, description: Description, image_channels: int) -> Sequence[int | None]:
        return [image_channels]

    def forward(self, network: Any, patch: Tensor, guide: Tensor) -> Outputs:
        image, previous = patch.tensor_split([self.image_channels], dim=1)
        outputs: Outputs = network(torch.cat((self.gates[0](image, guide), previous), dim=1))
        return outputs


def build_gates(description: Description, gate_at: str, gate: str, image_channels: int) -> Position:
    """Build the gates of a network.

    Args:
        description: Description of the network.
        gate_at: Where the guide acts, a name in lists.GATE_POSITIONS.
        gate: How the guide acts, a name in lists.GATES.
        image_channels: Number of image channels.

    Raises:
        GuidinoError: If the network cannot be gated there, or if its channels are unknown and the gates need them.
    """
    position: type[Position] = lists.find(lists.GATE_POSITIONS, gate_at, "guidino.gate_at").load()
    form: type[Gate] = lists.find(lists.GATES, gate, "guidino.gate").load()
    asked = f'guidino.gate_at is "{gate_at}", but {description.name}'
    if description.gates is not None and gate_at not in description.gates:
        raise GuidinoError(f"{asked} takes it at " + " or ".join(f'"{name}"' for name in description.gates) + " only")
    if position.needs_features and not description.features:
        raise GuidinoError(
            f'{asked} has no encoder that tells its output_channels, or no decoder, to gate between; use "input"'
        )
    channels = position.gated_channels(description, image_channels)
    if form.needs_channels and None in channels:
        raise GuidinoError(
            f'guidino.gate is "{gate}", which needs to know how many channels it gates, and {description.name} '
            'does not tell; use "residual"'
        )
    return position(form, channels, image_channels)
