"""GuidedNetwork: the planned segmentation network, gated by a guide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.encoders.token_encoder import TokenEncoder
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.guide.gates import GATINGS
from nnunetv2_guidino.guide.pretrained_weights import TakesPretrainedWeights
from nnunetv2_guidino.guide.slices import between_slices, slice_positions
from nnunetv2_guidino.guide.tokenbook import TokenBook, gating_guide


class GuidedNetwork(TakesPretrainedWeights):
    """Gates features of a segmentation network by a guide.

    Args:
        network: The planned network, as nnU-Net builds it. The gates "skips" and "bottleneck" need its `encoder` to
            return a list of features, finest first, and its `decoder` to take that list.
        config: With encoder_config and classes filled in.
        normalization_schemes: nnU-Net's, one per image channel.
        for_prediction: LoRA's adapters are merged when weights are loaded, and the guides are not returned. Else the
            adapters are trainable, and they are (see `returns_guides`).

    Shape:
        (B, n, H, W) -> (B, classes, H, W), and volumes (B, n, D, H, W) -> (B, classes, D, H, W). Where
        `returns_guides` is set, a list of nnU-Net's outputs, finest first, with the guides as its last entry.

    Raises:
        GuidinoError: If one of these is missing, or the network cannot be gated that way.
    """

    network: Any  # what the plans name

    def __init__(
        self,
        network: nn.Module,
        config: GuideConfig,
        normalization_schemes: Sequence[str],
        for_prediction: bool = False,
    ):
        super().__init__()
        if config.encoder_config is None or config.classes is None:
            raise GuidinoError(
                "guidino.encoder_config and guidino.classes are missing in the plans. They are filled in when training "
                "starts: predict with the plans.json in the trained model's folder"
            )
        if config.gate != "input" and not (hasattr(network, "encoder") and hasattr(network, "decoder")):
            raise GuidinoError(
                f'guidino.gate is "{config.gate}", but {type(network).__name__} has no encoder and decoder to gate '
                'between; use "input"'
            )
        self.settings = config
        self.returns_guides = not for_prediction
        self.gate = config.gate
        self.apply_gate = GATINGS[config.gating]()
        self.slice_stride = config.slice_stride
        self.network = network
        self.token_encoder = TokenEncoder(
            config.encoder_config,
            config.layer,
            normalization_schemes,
            config.min_input_size,
            config.lora,
            for_prediction,
        )
        self.tokenbook = TokenBook(
            self.token_encoder.channels,
            config.prototypes,
            config.similarity,
            config.readout,
            guides=config.classes if config.guides == "classes" else 1,
        )

    @property
    def decoder(self) -> Any:
        """The planned network's: nnU-Net switches deep supervision there."""
        return self.network.decoder

    def guides(self, patch: Tensor) -> Tensor:
        """One guide, or one for each class or region, at the resolution of the tokens.

        Shape:
            (B, n, H, W), as nnU-Net preprocessed it -> (B, G, h, w) in [0, 1]
            (B, n, D, H, W) -> (B, G, D, h, w), slice by slice along the first axis, nnU-Net's through-plane one
        """
        if patch.ndim == 4:
            return self.tokenbook(self.token_encoder(patch))
        depth = patch.shape[2]
        positions = slice_positions(depth, self.slice_stride)
        slices = patch[:, :, positions].transpose(1, 2)
        guides = torch.unflatten(self.guides(slices.flatten(0, 1)), 0, slices.shape[:2])
        return between_slices(guides.transpose(1, 2), positions, depth)

    def guide(self, patch: Tensor) -> Tensor:
        """The one that gates, (B, 1, …)."""
        return gating_guide(self.guides(patch))

    def forward(self, patch: Tensor) -> Tensor | list[Tensor]:
        guides = self.guides(patch)
        guide = gating_guide(guides)
        if self.gate == "input":
            # What a cascade's previous stage says is no feature of the image.
            image, previous = patch.tensor_split([self.token_encoder.image_channels], dim=1)
            segmentation = self.network(torch.cat((self.apply_gate(image, guide), previous), dim=1))
        else:
            features = list(self.network.encoder(patch))
            first = 0 if self.gate == "skips" else len(features) - 1
            for level in range(first, len(features)):
                features[level] = self.apply_gate(features[level], guide)
            segmentation = self.decoder(features)
        if not self.returns_guides:
            return segmentation
        return [*(segmentation if isinstance(segmentation, list) else [segmentation]), guides]

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """The planned network's, which nnU-Net's planner compares with its own reference networks."""
        return self.network.compute_conv_feature_map_size(input_size)
