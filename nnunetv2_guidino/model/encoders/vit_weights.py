"""Read the pretrained weights of a vision transformer from its folder, and check them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.architecture import configuration, not_a_vit
from nnunetv2_guidino.model.encoders.damage import check_finite
from nnunetv2_guidino.model.encoders.families import family_of
from nnunetv2_guidino.model.encoders.names import is_unused


def pretrained_vit(folder: Path, architecture: dict[str, Any]) -> Any:
    """Build the whole transformer of an architecture in float32, with the weights of a folder.

    Raises:
        GuidinoError: If the weights do not fit the architecture or are not finite, or if the transformer does not
            return one token per patch.
    """
    misfit = f"encoder {folder}: the weights cannot be loaded into the architecture in config.json"
    with _quiet_transformers():
        try:
            pretrained, info = AutoModel.from_pretrained(
                folder,
                config=configuration(architecture),
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise GuidinoError(f"{misfit}: {error}") from error
    missing = [key for key in info["missing_keys"] if not is_unused(key)]
    if missing:
        raise GuidinoError(f"{misfit}: {len(missing)} tensors are missing, {missing[0]} for one")
    others = sorted(info["mismatched_keys"])
    if others:
        name, theirs, ours = others[0]
        raise GuidinoError(
            f"{misfit}: they are of another width or size: {name} has shape {tuple(theirs)} among the weights, and "
            f"{tuple(ours)} by config.json. Take both from one encoder"
        )
    check_finite(pretrained.state_dict(), f"encoder {folder}")
    _check_patch_tokens(pretrained, folder)
    return pretrained


def _check_patch_tokens(vit: Any, folder: Path) -> None:
    family = family_of(vit.config.model_type)
    patch, prefix = family.patch_size(vit), family.prefix_tokens(vit)
    image = torch.zeros(1, 3, 2 * patch, 3 * patch)
    try:
        with torch.no_grad():
            tokens = vit(pixel_values=image, **family.forward_options(vit)).last_hidden_state
    except Exception as error:
        raise GuidinoError(not_a_vit(f"encoder {folder}", error)) from error
    right = tokens.ndim == 3 and (tokens.shape[1] >= 6 if prefix is None else tokens.shape[1] == prefix + 6)
    if not right:
        raise GuidinoError(
            not_a_vit(f"encoder {folder}", f"an image of 2×3 patches gave a tensor of shape {tuple(tokens.shape)}")
        )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep progress bars and tables of unused weights out of the training log; `pretrained_vit` checks the weights."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
