"""Share one pass of a frozen transformer between a segmentation network on tokens and its guide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder
from nnunetv2_guidino.model.networks.token_network import TokenNetwork


def common_layers(network: nn.Module, encoder: TokenEncoder, config: GuideConfig) -> tuple[int, ...] | None:
    """Return the indices, from 0, of the network's token maps that are also the guide's tokens.

    Return None if the two cannot share a pass: the network does not use tokens, its tokens come from other layers,
    another transformer or other weights, or a transformer is trained. `same_input` compares the input sizes for each
    patch.
    """
    if not isinstance(network, TokenNetwork):
        return None
    layers = config.layer if isinstance(config.layer, list) else [encoder.last_layer]
    if not set(layers) <= set(network.layers) or not _equal(network.token_encoder, encoder):
        return None
    return tuple(network.layers.index(layer) for layer in layers)


def _equal(whole: TokenEncoder, part: TokenEncoder) -> bool:
    """Return True if both encoders make equal tokens from equal input, where `part` has the first blocks of `whole`."""
    # A learned convolution to RGB and a trained transformer change separately in the two encoders.
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
    """Return True if both transformers resize a patch (B, n, H, W) to the same size."""
    size = patch.shape[2:]
    return network.token_encoder.input_size(*size) == encoder.input_size(*size)


class Encoded:
    """A network on tokens with features that are already computed (see contract.encode and contract.decode).

    Args:
        network: The network that made the features.
        features: The features as the network's `encode` returns them.
        size: Sides of the patch in pixels.
    """

    def __init__(self, network: TokenNetwork, features: list[Tensor], size: Sequence[int]):
        self.network = network
        self.features = features
        self.size = size

    def encoder(self, patch: Tensor) -> list[Tensor]:
        """Return the features that are already there; `patch` is ignored."""
        return self.features

    def decoder(self, features: list[Tensor]) -> Any:
        """Return the network's outputs for its features, gated or not."""
        return self.network.decode(features, self.size)
