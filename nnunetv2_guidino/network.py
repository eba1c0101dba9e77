"""GuidedNetwork: the planned segmentation network, gated by a guide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.token_encoder import TokenEncoder
from nnunetv2_guidino.tokenbook import TokenBook


class GuidedNetwork(nn.Module):
    """Multiplies features of a segmentation network by a guide.

    Args:
        network: The planned network, as nnU-Net builds it. The gates "skips" and "bottleneck" need its `encoder` to
            return a list of features, finest first, and its `decoder` to take that list.
        config: With encoder_config filled in.
        normalization_schemes: nnU-Net's, one per image channel.
        merge_lora: Merge LoRA's adapters when weights are loaded, to predict; else they are trainable.

    Shape:
        (B, n, H, W) -> (B, classes, H, W); with deep supervision on, nnU-Net's list of outputs, finest first, with the
        guide (B, 1, h, w) as its last entry.

    Raises:
        GuidinoError: If encoder_config is missing, or the network cannot be gated that way.
    """

    network: Any  # what the plans name

    def __init__(
        self, network: nn.Module, config: GuideConfig, normalization_schemes: Sequence[str], merge_lora: bool = False
    ):
        super().__init__()
        if config.encoder_config is None:
            raise GuidinoError(
                "guidino.encoder_config is missing in the plans. It is filled in when training starts: predict with "
                "the plans.json in the trained model's folder"
            )
        if config.gate != "input" and not (hasattr(network, "encoder") and hasattr(network, "decoder")):
            raise GuidinoError(
                f'guidino.gate is "{config.gate}", but {type(network).__name__} has no encoder and decoder to gate '
                'between; use "input"'
            )
        self.gate = config.gate
        self.network = network
        self.token_encoder = TokenEncoder(
            config.encoder_config, config.layer, normalization_schemes, config.min_input_size, config.lora, merge_lora
        )
        self.tokenbook = TokenBook(self.token_encoder.channels, config.prototypes, config.similarity, config.readout)

    @property
    def decoder(self) -> Any:
        """The planned network's: nnU-Net switches deep supervision there."""
        return self.network.decoder

    def guide(self, patch: Tensor) -> Tensor:
        """(B, n, H, W), as nnU-Net preprocessed it -> (B, 1, h, w) in [0, 1], at the resolution of the tokens."""
        return self.tokenbook(self.token_encoder(patch))

    def forward(self, patch: Tensor) -> Tensor | list[Tensor]:
        guide = self.guide(patch)
        if self.gate == "input":
            segmentation = self.network(apply_gate(patch, guide))
        else:
            features = list(self.network.encoder(patch))
            first = 0 if self.gate == "skips" else len(features) - 1
            for level in range(first, len(features)):
                features[level] = apply_gate(features[level], guide)
            segmentation = self.decoder(features)
        return [*segmentation, guide] if self.decoder.deep_supervision else segmentation

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """The planned network's, which nnU-Net's planner compares with its own reference networks."""
        return self.network.compute_conv_feature_map_size(input_size)


def apply_gate(feature: Tensor, guide: Tensor) -> Tensor:
    """feature ⊙ guide, with the guide resized to the feature: averaged where that is coarser, else interpolated.

    Shape:
        feature (B, C, H, W), guide (B, 1, h, w) -> (B, C, H, W)
    """
    height, width = feature.shape[2:]
    if height <= guide.shape[2] and width <= guide.shape[3]:
        resized = F.adaptive_avg_pool2d(guide, (height, width))
    else:
        resized = F.interpolate(guide, size=(height, width), mode="bilinear")
    return feature * resized.to(feature.dtype)
