"""How much GPU memory a guided training needs, estimated before it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.encoders.cost import encoder_cost
from nnunetv2_guidino.encoders.registry import KNOWN_ENCODERS
from nnunetv2_guidino.token_encoder import find_encoder, is_cached, read_encoder_config

# nnU-Net's planner takes this many elements of feature maps (85e6 a patch in batches of 12) to fill 8 GB in training.
GB_PER_ELEMENT = 8 / (85e6 * 12)
SMALLEST_BATCH = 2  # nnU-Net's planner's
ADAM_BYTES = 12  # of each trained parameter: gradient and two moments
HALF = 0.5  # CUDA trainings run under autocast; the encoder's activations are counted in float32
LIVE_TENSORS = 4  # of a block that keeps nothing: its input, its output, and what it is at


@dataclass(frozen=True)
class Memory:
    """In GB: what each patch of a batch adds, and what is there whatever the batch."""

    network_per_patch: float
    guide_per_patch: float
    guide_fixed: float

    def total(self, batch_size: int) -> float:
        return self.guide_fixed + batch_size * (self.network_per_patch + self.guide_per_patch)

    def largest_batch(self, target: float, planned: int) -> int:
        """Of at most `planned` patches, what fits into `target` GB; never below nnU-Net's 2."""
        fitting = (batch for batch in range(planned, SMALLEST_BATCH, -1) if self.total(batch) <= target)
        return next(fitting, SMALLEST_BATCH)

    def describe(self, batch_size: int) -> str:
        return (
            f"estimated GPU memory at batch size {batch_size}: {self.total(batch_size):.1f} GB "
            f"(planned network {batch_size * self.network_per_patch:.1f}, "
            f"guide {self.guide_fixed + batch_size * self.guide_per_patch:.1f})"
        )


def estimate(plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> Memory | None:
    """The planned network as nnU-Net's planner counts it, and the encoder's weights and activations.

    None where it cannot be told: for 3D, for an encoder that is neither known nor on this machine, and for a network
    without nnU-Net's compute_conv_feature_map_size.
    """
    manager = PlansManager(plans)
    settings = manager.get_configuration(configuration)
    config = GuideConfig.from_plans(plans)
    architecture = _architecture(config)
    if architecture is None or len(settings.patch_size) != 2:
        return None
    channels = len(settings.normalization_schemes)
    with torch.device("meta"):
        network = get_network_from_plans(
            settings.network_arch_class_name,
            settings.network_arch_init_kwargs,
            settings.network_arch_init_kwargs_req_import,
            channels,
            manager.get_label_manager(dataset_json).num_segmentation_heads,
            allow_init=False,
        )
    if not hasattr(network, "compute_conv_feature_map_size"):
        return None
    cost = encoder_cost(
        architecture, config.layer, config.min_input_size, settings.patch_size, channels, lora=config.lora
    )
    activations = HALF * (cost.activation_bytes or LIVE_TENSORS * cost.working_bytes)
    return Memory(
        network_per_patch=network.compute_conv_feature_map_size(settings.patch_size) * GB_PER_ELEMENT,
        guide_per_patch=activations / 2**30,
        guide_fixed=(cost.weight_bytes + ADAM_BYTES * cost.trainable) / 2**30,
    )


def _architecture(config: GuideConfig) -> dict[str, Any] | None:
    if config.encoder in KNOWN_ENCODERS:
        return KNOWN_ENCODERS[config.encoder].architecture
    if is_cached(config.encoder):
        return read_encoder_config(find_encoder(config.encoder), config.layer)
    return None
