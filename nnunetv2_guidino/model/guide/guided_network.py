"""GuidedNetwork gates the planned segmentation network with a guide (section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.precision import fits_float16
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder
from nnunetv2_guidino.model.guide.late_fusion import LateFusion, can_fuse
from nnunetv2_guidino.model.guide.positions import build_gates
from nnunetv2_guidino.model.guide.pretrained_weights import TakesPretrainedWeights
from nnunetv2_guidino.model.guide.shared_pass import Encoded, common_layers, same_input
from nnunetv2_guidino.model.guide.slices import between_slices, slice_positions, take_slices
from nnunetv2_guidino.model.guide.tokenbook import TokenBook, foreground_guide
from nnunetv2_guidino.model.networks.contract import describe


class GuidedNetwork(TakesPretrainedWeights):
    """Gate features of a segmentation network with a guide and, in evaluation mode, add the guide's evidence.

    Two independent switches control the outputs. nnU-Net's deep supervision (`decoder.deep_supervision`) selects
    between a list of segmentations, finest first, and the finest segmentation as a tensor. `returns_guides` appends the
    guides' logits as the last entry of a list. It starts on for training and off for prediction; a trainer switches it
    off while it predicts.

    Args:
        network: The planned network, as nnU-Net builds it (see networks.contract).
        config: Settings of the guide, with encoder_config and classes filled in.
        heads: Number of the segmentation's channels.
        normalization_schemes: nnU-Net's normalization scheme of each image channel.
        for_prediction: If True, the network merges LoRA's adapters when it loads weights and returns no guides. If
            False, the adapters are trainable and the network returns guides.

    Shape:
        (B, n, H, W) -> (B, heads, H, W), and volumes (B, n, D, H, W) -> (B, heads, D, H, W); with deep supervision a
        list of segmentations, finest first. With `returns_guides`, a list [segmentation, …, logits of the guides],
        where the logits are (B, G, h, w) or (B, G, D, h, w).

    Raises:
        GuidinoError: If encoder_config or classes is missing, or if the network cannot be gated as configured.
    """

    network: Any  # the network that the plans name
    returns_guides: bool

    def __init__(
        self,
        network: nn.Module,
        config: GuideConfig,
        heads: int,
        normalization_schemes: Sequence[str],
        for_prediction: bool = False,
    ):
        super().__init__()
        if config.encoder_config is None or config.classes is None:
            raise GuidinoError(
                "guidino.encoder_config and guidino.classes are missing in the plans. They are filled in when training "
                "starts: predict with the plans.json in the trained model's folder"
            )
        self.settings = config
        self.for_prediction = for_prediction
        self.returns_guides = not for_prediction
        self.slice_stride = config.slice_stride
        self.gate_at = build_gates(describe(network), config.gate_at, config.gate, len(normalization_schemes))
        self.network = network
        self._no_decoder = SimpleNamespace(deep_supervision=False)
        self.common_layers: tuple[int, ...] | None = None  # known when the weights are loaded: see `share_pass`
        self.register_load_state_dict_post_hook(_weights_are_loaded)  # type: ignore[no-untyped-call]
        self.token_encoder = TokenEncoder(
            config.encoder_config,
            config.layer,
            normalization_schemes,
            config.min_input_size,
            config.lora,
            merge_lora=for_prediction,
            max_input_size=config.max_input_size,
        )
        self.tokenbook = TokenBook(
            self.token_encoder.channels,
            config.prototypes,
            config.similarity,
            config.readout,
            guides=config.classes if config.guides == "classes" else 1,
        )
        fuses = config.late_fusion and can_fuse(heads, config.classes, self.tokenbook.guides)
        self.late_fusion = LateFusion(config.classes) if fuses else None
        self.register_load_state_dict_pre_hook(_without_late_fusion)  # type: ignore[no-untyped-call]

    @property
    def decoder(self) -> Any:
        """Return the planned network's decoder, on which nnU-Net switches deep supervision, or a stand-in for it."""
        return getattr(self.network, "decoder", self._no_decoder)

    def guide_logits(self, patch: Tensor) -> Tensor:
        """Return the logits of one guide, or of one for each class or region, at the resolution of the tokens.

        The encoder takes volumes slice by slice along the first axis, which is nnU-Net's through-plane axis.

        Args:
            patch: Patch as nnU-Net preprocessed it.

        Shape:
            (B, n, H, W) -> (B, G, h, w)
            (B, n, D, H, W) -> (B, G, D, h, w)
        """
        if patch.ndim == 4:
            return self.tokenbook.logits(self.token_encoder(patch))
        depth = patch.shape[2]
        positions = slice_positions(depth, self.slice_stride)
        slices = take_slices(patch, self.slice_stride).transpose(1, 2)
        logits = torch.unflatten(self.guide_logits(slices.flatten(0, 1)), 0, slices.shape[:2])
        return between_slices(logits.transpose(1, 2), positions, depth)

    def guides(self, patch: Tensor) -> Tensor:
        """Return the guides in [0, 1], with the shapes of `guide_logits`."""
        return self.guide_logits(patch).sigmoid()

    def guide(self, patch: Tensor) -> Tensor:
        """Return the one guide that gates, (B, 1, …) in [0, 1] (equation 1)."""
        return foreground_guide(self.guides(patch))

    def share_pass(self) -> None:
        """Let network and guide share one pass of the transformer, if both use the same frozen one.

        Call this when their weights have changed; `load_state_dict` does so.
        """
        self.common_layers = common_layers(self.network, self.token_encoder, self.settings)

    def _shares_pass(self, patch: Tensor) -> bool:
        """Return True if the guide can use the network's tokens of this patch.

        A gate at the input prevents it: the network's pass would have to wait for the guide.
        """
        return (
            self.common_layers is not None
            and self.gate_at.needs_features
            and same_input(self.network, self.token_encoder, patch)
        )

    def forward(self, patch: Tensor) -> Tensor | list[Tensor]:
        network = self.network
        if self._shares_pass(patch):
            maps = network.token_maps(patch)
            logits = self.tokenbook.logits(torch.cat([maps[index] for index in self.common_layers or ()], dim=1))
            network = Encoded(network, network.features_of(maps), patch.shape[2:])
        else:
            logits = self.guide_logits(patch)
        outputs: Tensor | list[Tensor] = self.gate_at(network, patch, foreground_guide(logits.sigmoid()))
        finest, *coarser = [outputs] if isinstance(outputs, Tensor) else outputs
        # While training, the loss adds the guide's logits itself (see guide.late_fusion).
        if self.late_fusion is not None and not self.training:
            finest = self.late_fusion(finest, logits)
        if self.returns_guides:
            return [finest, *coarser, logits]
        return finest if isinstance(outputs, Tensor) else [finest, *coarser]

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Return the planned network's value, which nnU-Net's planner compares with that of its reference networks."""
        return self.network.compute_conv_feature_map_size(input_size)


def _without_late_fusion(network: GuidedNetwork, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Drop the weight of 0 that version 0.2.0.dev0 stored for networks without late fusion."""
    if network.late_fusion is None:
        state.pop(f"{prefix}late_fusion.weight", None)


def _weights_are_loaded(network: GuidedNetwork, incompatible_keys: object) -> None:
    source = network.settings.encoder_source or {}  # -pretrained_weights may have replaced it
    network.token_encoder.fits_float16 = fits_float16(source.get("largest_activation"))
    network.share_pass()
