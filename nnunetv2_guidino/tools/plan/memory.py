"""Estimate the GPU memory of a guided training before it is run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_guidino import lists
from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.model.encoders.token_encoder import TOKENS_AT_ONCE, TOKENS_WITHOUT_GRADIENT
from nnunetv2_guidino.model.guide.positions import Position
from nnunetv2_guidino.model.guide.slices import slice_positions
from nnunetv2_guidino.model.networks.contract import describe, encode
from nnunetv2_guidino.nnunet.plans_file import PlansFile
from nnunetv2_guidino.tools.plan.encoder_cost import Cost, encoder_cost, known_architecture

# nnU-Net's planner assumes that feature maps of so many elements fill 8 GB in training: 85e6 per patch and 12 patches
# in 2D, 560e6 per patch and 2 patches in 3D.
GB_PER_ELEMENT = {2: 8 / (85e6 * 12), 3: 8 / (560e6 * 2)}
SMALLEST_BATCH = 2  # as in nnU-Net's planner
ADAM_BYTES = 12  # per trained parameter: gradient and two moments
# Bytes are counted in float32; CUDA trainings run under autocast, which makes tensors smaller by these factors.
HALF = 0.5  # tensors on which a block works
KEPT = 0.7  # tensors that blocks keep for the backward pass: norms and their inputs stay in float32
COPY_BYTES = 2  # per weight through which gradients pass: autocast's copy is kept too
LIVE_TENSORS = 4  # tensors of a working block besides the kept ones: its input, its output, and two between
# The TokenBook keeps so many float32 tensors for its backward pass: the tokens, their projection, and its norm.
TOKEN_COPIES = 3
# Bytes per pixel and class while the boundary's loss is computed: the mask, its band, and their inputs.
BAND_BYTES = 6


@dataclass(frozen=True)
class Memory:
    """The memory of a training, in GB.

    Args:
        network_per_patch: Memory of the planned network for each patch of a batch.
        guide_fixed: Weights of encoder and TokenBook, the optimizer's values for the trained ones, and autocast's
            copies of the encoder's weights if gradients pass through it.
        slices_per_patch: Number of images that the encoder sees of each patch: 1 in 2D.
        guide_per_slice: Memory of the guide for each of these images.
        gates_per_patch: Memory of the gates for each patch: every gated feature once more.
        boundary_per_patch: Memory of the boundary's loss for each patch.
        slices_at_once: Number of images that the encoder encodes at a time.
        encoding_per_slice: Further memory for each of the images that are encoded at a time.
    """

    network_per_patch: float
    guide_fixed: float
    slices_per_patch: int
    guide_per_slice: float
    gates_per_patch: float
    boundary_per_patch: float
    slices_at_once: float
    encoding_per_slice: float

    def guide(self, batch_size: int) -> float:
        """Return the GB that the guide takes for a batch."""
        slices = batch_size * self.slices_per_patch
        encoding = min(slices, self.slices_at_once) * self.encoding_per_slice
        patches = batch_size * (self.gates_per_patch + self.boundary_per_patch)
        return self.guide_fixed + patches + slices * self.guide_per_slice + encoding

    def total(self, batch_size: int) -> float:
        """Return the GB that a training takes for a batch."""
        return self.guide(batch_size) + batch_size * self.network_per_patch

    def largest_batch(self, target: float, planned: int) -> int:
        """Return the largest batch of at most `planned` patches that fits into `target` GB, never below nnU-Net's 2."""
        fitting = (batch for batch in range(planned, SMALLEST_BATCH, -1) if self.total(batch) <= target)
        return next(fitting, SMALLEST_BATCH)

    def describe(self, batch_size: int) -> str:
        """Return the estimate as a line of text."""
        return (
            f"estimated GPU memory at batch size {batch_size}: {self.total(batch_size):.1f} GB "
            f"(planned network {batch_size * self.network_per_patch:.1f}, guide {self.guide(batch_size):.1f})"
        )


def estimate(plans: PlansFile, configuration: str) -> Memory | None:
    """Count the planned network as nnU-Net's planner does, and the encoder's weights and activations.

    Returns:
        The estimate; None for an encoder that is neither known nor on this machine, and for a network without
        nnU-Net's compute_conv_feature_map_size.
    """
    config, settings = plans.guide, plans.configuration(configuration)
    architecture = known_architecture(config)
    if architecture is None:
        return None
    network, labels = plans.network(configuration), plans.label_manager
    if not hasattr(network, "compute_conv_feature_map_size"):
        return None
    patch_size = settings.patch_size
    height, width = patch_size[-2:]
    elements = _feature_elements(network, patch_size)
    channels = len(settings.normalization_schemes)
    cost = encoder_cost(
        architecture,
        config.layer,
        config.min_input_size,
        (height, width),
        channels,
        lora=config.lora,
        max_input_size=config.max_input_size,
    )
    # The input of the encoder is kept for the gradients of every slice.
    slice_bytes = 4 * channels * height * width + TOKEN_COPIES * cost.token_bytes
    trained = cost.activation_bytes > 0
    several = isinstance(config.layer, list) and len(config.layer) > 1
    # Tokens of earlier layers are kept until those of the last come, and so are activations (TokenEncoder.forward).
    waiting = cost.token_bytes if several else 0
    at_once = TOKENS_AT_ONCE if trained else TOKENS_WITHOUT_GRADIENT
    copies = COPY_BYTES * cost.parameters if trained else 0
    book = _tokenbook_parameters(cost, config)
    patch = torch.empty(1, plans.input_channels(configuration), *patch_size, device="meta")
    classes = len(labels.foreground_regions if labels.has_regions else labels.foreground_labels)
    gated = _gated_elements(network, config.gate_at, channels, patch)
    return Memory(
        network_per_patch=elements * GB_PER_ELEMENT[len(patch_size)],
        guide_fixed=(cost.weight_bytes + copies + 4 * book + ADAM_BYTES * (cost.trainable + book)) / 2**30,
        slices_per_patch=_slices(patch_size, config.slice_stride),
        guide_per_slice=slice_bytes / 2**30,
        slices_at_once=math.inf if trained and several else max(1, at_once // cost.tokens),
        gates_per_patch=HALF * 4 * gated / 2**30,
        boundary_per_patch=BAND_BYTES * classes * math.prod(patch_size) / 2**30 if config.lambdas["boundary"] else 0.0,
        encoding_per_slice=(KEPT * cost.activation_bytes + HALF * LIVE_TENSORS * cost.working_bytes + waiting) / 2**30,
    )


def _feature_elements(network: Any, patch_size: Sequence[int]) -> int:
    """Return the elements of all feature maps without deep supervision, as the planner counts its own networks."""
    decoder = getattr(network, "decoder", network)
    before, decoder.deep_supervision = getattr(decoder, "deep_supervision", False), False
    elements = int(network.compute_conv_feature_map_size(patch_size))
    decoder.deep_supervision = before
    return elements


def _gated_elements(network: nn.Module, gate_at: str, image_channels: int, patch: Tensor) -> int:
    """Return the elements of one patch's features on which the guide acts; network and patch are on the meta device."""
    position: type[Position] = lists.find(lists.GATE_POSITIONS, gate_at, "guidino.gate_at").load()
    if not position.needs_features:
        return patch[:, :image_channels].numel()
    count = len(position.gated_channels(describe(network), image_channels))
    return sum(feature.numel() for feature in encode(network, patch)[-count:])


def _tokenbook_parameters(cost: Cost, config: GuideConfig) -> int:
    width = cost.token_bytes // (4 * cost.tokens)
    return width * (width + 1 + config.prototypes)


def _slices(patch_size: Sequence[int], stride: int) -> int:
    return len(slice_positions(patch_size[0], stride)) if len(patch_size) == 3 else 1
