"""Vision transformers as plain JSON, and what is to be known of those that are built from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from nnunetv2_guidino.encoders.families import family_of
from nnunetv2_guidino.errors import GuidinoError

# What AutoConfig.to_dict adds that says nothing about the architecture (labels, versions, the backbone API).
_NOT_ARCHITECTURE = {
    "transformers_version", "_name_or_path", "architectures", "dtype", "id2label", "label2id", "label_names",
    "num_classes", "problem_type", "stage_names", "out_features", "out_indices",
}  # fmt: skip
Layer = int | list[int] | None  # GuideConfig.layer


def read_encoder_config(folder: Path, layer: Layer) -> dict[str, Any]:
    """The architecture in a folder's config.json as plain JSON, enough to rebuild the encoder without that folder.

    Raises:
        GuidinoError: If it is not a vision transformer that returns patch tokens, or has fewer blocks than `layer`.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (ValueError, OSError) as error:
        raise GuidinoError(f"encoder {folder}: transformers does not know the model in config.json: {error}") from error
    architecture = {key: value for key, value in config.to_dict().items() if key not in _NOT_ARCHITECTURE}
    family = family_of(config.model_type)
    architecture = family.completed(architecture)
    try:
        with torch.device("meta"):  # no weights are allocated
            vit = build_vit(architecture)
        depth = len(family.blocks(vit))
        family.patch_size(vit)
    except Exception as error:  # transformers' and timm's architectures fail each in its own way
        raise GuidinoError(not_a_vit(folder, error)) from error
    layers = layer_numbers(layer, depth)
    if layers[-1] > depth:
        raise GuidinoError(f"guidino.layer is {layer}, but encoder {folder} has {depth} blocks")
    if len(layers) > 1 and family.final_norm(vit) is None:
        raise GuidinoError(
            f"guidino.layer is {layer}, but no final norm is known of {type(vit).__name__}; give one layer"
        )
    return architecture


def not_a_vit(folder: Path, reason: object) -> str:
    return (
        f"encoder {folder} is not a vision transformer that returns one token per patch; expected DINOv3, DINOv2 or "
        f"another plain ViT ({reason})"
    )


def build_vit(architecture: dict[str, Any]) -> Any:
    """The transformer of read_encoder_config's architecture, with random weights in float32."""
    return AutoModel.from_config(AutoConfig.for_model(**architecture), dtype=torch.float32)


def layer_numbers(layer: Layer, depth: int) -> list[int]:
    if isinstance(layer, list):
        return layer
    return [depth if layer is None else layer]
