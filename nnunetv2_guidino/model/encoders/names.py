"""A state dict whose names stay as they are while transformers, peft and timm rename their modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from nnunetv2_guidino.model.encoders.families import Family

ENCODER_PREFIX = "token_encoder.vit."  # of the transformer in a guided network
# Parameters that a checkpoint may lack, or have in excess, because no forward pass uses them.
UNUSED_PARAMETERS = ("mask_token", "pooler")


def is_unused(name: str) -> bool:
    """Whether the tokens are the same whatever the tensor of this name holds."""
    return any(unused in name for unused in UNUSED_PARAMETERS)


def stable_names(names: Iterable[str], family: Family) -> dict[str, str]:
    """The names in our checkpoints, by those in the installed libraries.

    Where two would become one, in a family that nobody has looked at, all stay as they are.
    """
    stable = {name: family.stable_name(name) for name in names}
    return stable if len(set(stable.values())) == len(stable) else {name: name for name in stable}


def to_stable(state: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """A transformer's weights, named as any version of the libraries does, by the names in our checkpoints."""
    names = stable_names(state, family)
    return {names[name]: tensor for name, tensor in state.items()}


def to_installed(state: Mapping[str, Tensor], own: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Weights by the names in our checkpoints, or those of any version, as the installed libraries name them.

    Args:
        state: The weights.
        own: Those of the transformer that will take them, which supplies what is not used and not there.
        family: Of both.

    Returns:
        The weights; what fits no name of the transformer keeps its own, so that loading complains of it.
    """
    installed = {stable: name for name, stable in stable_names(own, family).items()}
    result = {name: own[name] for name in installed.values() if is_unused(name)}
    for stable, tensor in to_stable(state, family).items():
        if stable in installed or not is_unused(stable):
            result[installed.get(stable, stable)] = tensor
    return result


def network_to_stable(state: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """A guided network's state dict, of version 0.1.0 too, with the encoder's tensors by our checkpoints' names."""
    encoder = {key.removeprefix(ENCODER_PREFIX): value for key, value in state.items() if _is_encoder(key)}
    stable = {f"{ENCODER_PREFIX}{name}": value for name, value in to_stable(encoder, family).items()}
    return {**{key: value for key, value in state.items() if not _is_encoder(key)}, **stable}


def _is_encoder(key: str) -> bool:
    return key.startswith(ENCODER_PREFIX)
