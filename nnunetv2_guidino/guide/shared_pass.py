"""One pass of a frozen transformer for both that stand on it: a segmentation network on tokens, and its guide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_guidino.architectures.token_network import TokenNetwork
from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.encoders.token_encoder import TokenEncoder


def common_layers(network: nn.Module, encoder: TokenEncoder, config: GuideConfig) -> tuple[int, ...] | None:
    """Which of the network's token maps are the guide's tokens, counted from 0.

    None where they are not: the network does not stand on tokens, or on those of other layers, of another transformer
    or of other weights, or one of the two transformers is trained. Sizes of their input are compared for each patch.
    """
    if not isinstance(network, TokenNetwork):
        return None
    layers = config.layer if isinstance(config.layer, list) else [encoder.last_layer]
    if not set(layers) <= set(network.layers) or not _equal(network.token_encoder, encoder):
        return None
    return tuple(network.layers.index(layer) for layer in layers)


def _equal(whole: TokenEncoder, part: TokenEncoder) -> bool:
    """Whether both make the same tokens of the same input, `part` from the first blocks of `whole`."""
    if any(encoder.to_rgb is not None or encoder.has_gradients for encoder in (whole, part)):
        return False
    ours, theirs = whole.state_dict(), part.state_dict()
    return (
        whole.architecture == part.architecture
        and torch.equal(whole.shift, part.shift)
        and torch.equal(whole.scale, part.scale)
        and all(name in ours and torch.equal(ours[name], weight) for name, weight in theirs.items())
    )


def same_input(network: TokenNetwork, encoder: TokenEncoder, patch: Tensor) -> bool:
    """Whether both transformers see a patch at the same size."""
    size = patch.shape[2:]
    return network.token_encoder.input_size(*size) == encoder.input_size(*size)


class Encoded:
    """A network on tokens that has its features already, to be taken apart (see contract.encode and contract.decode).

    Args:
        network: Whose features they are.
        features: As its `encode` returns them.
        size: The patch's.
    """

    def __init__(self, network: TokenNetwork, features: list[Tensor], size: Sequence[int]):
        self.network = network
        self.features = features
        self.size = size

    def encoder(self, patch: Tensor) -> list[Tensor]:
        """The features of the patch, which is not looked at."""
        return self.features

    def decoder(self, features: list[Tensor]) -> Any:
        """The network's outputs, given its features, gated or not."""
        return self.network.decode(features, self.size)
