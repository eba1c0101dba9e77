"""Compute an encoder's cost at an input size on torch's meta device, without weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_guidino.config import GuideConfig, LoRA
from nnunetv2_guidino.model.encoders.architecture import Layer, read_encoder_config
from nnunetv2_guidino.model.encoders.known_encoders import KNOWN_ENCODERS
from nnunetv2_guidino.model.encoders.source import find_encoder, is_cached
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder


@dataclass(frozen=True)
class Cost:
    """The cost of one image's forward pass; all bytes are those of float32.

    Args:
        tokens: Number of patch tokens.
        flops: Floating-point operations; a multiplication and an addition are two.
        parameters: Parameters of the blocks that are used.
        trainable: Parameters of LoRA, or of the convolution before the encoder.
        weight_bytes: Bytes of the parameters.
        token_bytes: Bytes of the patch tokens.
        activation_bytes: Bytes that the forward pass keeps for the backward pass; 0 if the encoder is frozen.
        working_bytes: Bytes of the largest tensor that the forward pass makes.
    """

    tokens: int
    flops: int
    parameters: int
    trainable: int
    weight_bytes: int
    token_bytes: int
    activation_bytes: int
    working_bytes: int


def known_architecture(config: GuideConfig) -> dict[str, Any] | None:
    """Return the architecture of the guide's encoder; None if it is neither known nor on this machine."""
    if config.encoder in KNOWN_ENCODERS:
        return KNOWN_ENCODERS[config.encoder].architecture
    if is_cached(config.encoder):
        return read_encoder_config(find_encoder(config.encoder), config.layer)
    return None


def encoder_cost(
    architecture: dict[str, Any],
    layer: Layer,
    min_input_size: int,
    patch_size: Sequence[int],
    channels: int = 3,
    lora: LoRA | None = None,
    max_input_size: int | None = None,
) -> Cost:
    """Return the cost of the guide's encoder for one patch of `patch_size` pixels."""
    with torch.device("meta"):
        schemes = ["ZScoreNormalization"] * channels
        encoder = TokenEncoder(architecture, layer, schemes, min_input_size, lora, max_input_size=max_input_size)
        encoder.to("meta")  # timm computes rotary periods on the CPU
        patch = torch.zeros(1, channels, *patch_size)
    kept: dict[int, Any] = {}  # storages, so that a view counts once

    def keep(tensor: Tensor) -> Tensor:
        # The meta device has no fused attention. Real devices do, and keep no tokens × tokens matrices.
        if not (tensor.ndim >= 3 and tensor.shape[-1] == tensor.shape[-2]):
            kept[_identity(tensor)] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), FlopCounterMode(display=False) as counter:
        tokens = encoder.train()(patch)
    for tensor in (*encoder.parameters(), *encoder.buffers()):
        kept.pop(_identity(tensor), None)
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    rows, columns = tokens.shape[2:]
    mlp = max(m.out_features for m in encoder.vit.modules() if isinstance(m, torch.nn.Linear))
    return Cost(
        tokens=rows * columns,
        flops=counter.get_total_flops(),
        parameters=parameters,
        trainable=sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad),
        weight_bytes=4 * parameters,
        token_bytes=tokens.nbytes,
        activation_bytes=sum(storage.nbytes() for storage in kept.values()),
        working_bytes=4 * rows * columns * mlp,
    )


def _identity(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # on the meta device, data_ptr is 0 for all
