"""Read the architecture of a vision transformer from its folder as plain JSON, and rebuild it from this JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json
from nnunetv2_guidino.model.encoders.allowed import checked, described_keys
from nnunetv2_guidino.model.encoders.families import family_of

Layer = int | list[int] | None  # GuideConfig.layer
MOST_PARAMETERS = 2**34  # 64 GiB in float32; DINOv3's largest has 6.7 billion
IN_PLANS = "guidino.encoder_config in the plans"


def read_encoder_config(folder: Path, layer: Layer) -> dict[str, Any]:
    """Return the architecture in a folder's config.json as plain JSON, which rebuilds the encoder without the folder.

    Raises:
        GuidinoError: If it is not a vision transformer that returns patch tokens, has fewer blocks than `layer`, or
            has a key that is refused (see `allowed`).
    """
    where = f"encoder {folder}: config.json"
    written = read_json(folder / "config.json", dict)
    if "model_type" not in written and "pretrained_cfg" in written:
        written["model_type"] = "timm_wrapper"  # timm writes no model_type
    complete = configuration(written, where).to_dict()
    family, keys = family_of(written["model_type"]), described_keys(written["model_type"])
    described = {key: value for key, value in complete.items() if key in keys}
    architecture = family.completed({"model_type": written["model_type"], **described})
    with torch.device("meta"):  # no weights are allocated
        vit = build_vit(architecture, where)
    layers = checked_layers(layer, len(family.blocks(vit)), f"encoder {folder}")
    if len(layers) > 1 and family.final_norm(vit) is None:
        raise GuidinoError(
            f"guidino.layer is {layer}, but no final norm is known of {type(vit).__name__}; give one layer"
        )
    return architecture


def not_a_vit(where: str, reason: object) -> str:
    """Return the error message for an encoder that cannot be used.

    Args:
        where: Place of the encoder's description.
        reason: Reason why it cannot be used.
    """
    return (
        f"{where} is not a vision transformer that returns one token per patch; expected DINOv3, DINOv2 or another "
        f"plain ViT ({reason})"
    )


def configuration(architecture: dict[str, Any], where: str = IN_PLANS) -> Any:
    """Return transformers' configuration of an architecture.

    Raises:
        GuidinoError: If a key is refused or a value is invalid. The error names the place `where`.
    """
    kept = checked(architecture, where)
    try:
        return AutoConfig.for_model(**kept)
    except Exception as error:  # each configuration class of transformers raises other errors
        reason = " ".join(str(error).split())
        raise GuidinoError(f"{where}: no {kept['model_type']} can be made of this: {reason}") from error


def build_vit(architecture: dict[str, Any], where: str = IN_PLANS) -> Any:
    """Build the transformer of an architecture from read_encoder_config, with random weights in float32.

    Raises:
        GuidinoError: If the architecture is refused, invalid or too large. The error names the place `where`.
    """
    config = configuration(architecture, where)
    try:
        with torch.device("meta"):
            vit = AutoModel.from_config(config)
        family = family_of(config.model_type)
        family.patch_size(vit)
        blocks = len(family.blocks(vit))
    except Exception as error:  # each class of transformers and timm raises other errors
        raise GuidinoError(not_a_vit(where, error or type(error).__name__)) from error
    parameters = sum(parameter.numel() for parameter in vit.parameters())
    if parameters > MOST_PARAMETERS or not blocks:
        raise GuidinoError(
            f"{where} describes a transformer of {blocks} blocks and {parameters / 1e9:,.0f} billion parameters; "
            f"expected at least one block, and at most {MOST_PARAMETERS / 1e9:,.0f} billion parameters"
        )
    return AutoModel.from_config(config, dtype=torch.float32)


def checked_layers(layer: Layer, depth: int, where: str = IN_PLANS) -> list[int]:
    """Return the numbers of the blocks whose tokens are used, ascending. Blocks after the last of them are not run.

    Raises:
        GuidinoError: If the encoder has no block of a number. The error names the place `where`.
    """
    layers = layer if isinstance(layer, list) else [depth if layer is None else layer]
    if not layers or layers[0] < 1 or layers[-1] > depth:
        raise GuidinoError(f"guidino.layer is {layer}, but {where} has {depth} blocks, counted from 1")
    return layers
