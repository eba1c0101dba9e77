"""Translate between the tensor names in our checkpoints and those of the installed transformers, peft and timm.

Our names stay the same when these libraries rename their modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from nnunetv2_guidino.model.encoders.families import Family

ENCODER_PREFIX = "token_encoder.vit."  # of the transformer's tensors in a guided network
# Parameters that a checkpoint may lack, or have in excess, because no forward pass uses them.
UNUSED_PARAMETERS = ("mask_token", "pooler")


def is_unused(name: str) -> bool:
    """Return True if the tokens do not depend on the tensor of this name."""
    return any(unused in name for unused in UNUSED_PARAMETERS)


def stable_names(names: Iterable[str], family: Family) -> dict[str, str]:
    """Return the names in our checkpoints by the names in the installed libraries.

    If two names would become one, as may happen in an unknown family, all names stay as they are.
    """
    stable = {name: family.stable_name(name) for name in names}
    return stable if len(set(stable.values())) == len(stable) else {name: name for name in stable}


def to_stable(state: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Rename a transformer's weights from the names of any version of the libraries to those in our checkpoints."""
    names = stable_names(state, family)
    return {names[name]: tensor for name, tensor in state.items()}


def to_installed(state: Mapping[str, Tensor], own: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Rename weights to the names of the installed libraries.

    Args:
        state: Weights by the names in our checkpoints or by those of any version of the libraries.
        own: Weights of the transformer that will take them. They supply unused tensors that are missing.
        family: Family of both.

    Returns:
        The weights. A tensor that fits no name of the transformer keeps its name, so that loading reports it.
    """
    installed = {stable: name for name, stable in stable_names(own, family).items()}
    result = {name: own[name] for name in installed.values() if is_unused(name)}
    for stable, tensor in to_stable(state, family).items():
        if stable in installed or not is_unused(stable):
            result[installed.get(stable, stable)] = tensor
    return result


def network_to_stable(state: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Rename the encoder's tensors in a guided network's state dict to the names in our checkpoints.

    State dicts of version 0.1.0 have the names of the libraries of that time.
    """
    encoder = {key.removeprefix(ENCODER_PREFIX): value for key, value in state.items() if _is_encoder(key)}
    stable = {f"{ENCODER_PREFIX}{name}": value for name, value in to_stable(encoder, family).items()}
    return {**{key: value for key, value in state.items() if not _is_encoder(key)}, **stable}


def _is_encoder(key: str) -> bool:
    return key.startswith(ENCODER_PREFIX)
