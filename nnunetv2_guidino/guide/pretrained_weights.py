"""nnU-Net's -pretrained_weights for guided networks: from a plain network's checkpoint or a guided one's."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from torch import Tensor

from nnunetv2_guidino.errors import GuidinoError

SEGMENTATION_LAYERS = ".seg_layers."  # nnU-Net does not transfer them


class PretrainedWeights(dict[str, Tensor]):
    """What a checkpoint brings, by the names it has there.

    nnU-Net's load_pretrained_weights asks a network for its state dict, demands each of its items from the checkpoint,
    adds what the checkpoint has of its keys, and hands it to load_state_dict. A plain network's checkpoint has no guide
    and other names: so a guided network answers with this, which demands nothing and takes everything.
    """

    def keys(self) -> Any:  # nnU-Net asks nothing but whether a name is in it
        return _Everything()

    def completed(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dict of a guided network: `own`, and over it what the checkpoint brought.

        Raises:
            GuidinoError: If a tensor is missing or has another shape.
        """
        guided = any(name.startswith("tokenbook.") for name in self)
        brought = dict(self) if guided else {f"network.{name}": tensor for name, tensor in self.items()}
        wanted = [name for name in own if SEGMENTATION_LAYERS not in name and (guided or name.startswith("network."))]
        expected = f"expected one of the same planned network{' and guide' if guided else ''}"
        for name in wanted:
            if name not in brought:
                raise GuidinoError(f"-pretrained_weights: the checkpoint has no {name}; {expected}")
            if brought[name].shape != own[name].shape:
                theirs, ours = tuple(brought[name].shape), tuple(own[name].shape)
                raise GuidinoError(f"-pretrained_weights: {name} has shape {theirs} there, {ours} here; {expected}")
        return {**own, **{name: brought[name] for name in wanted}}


class _Everything(Container[str]):
    def __contains__(self, name: object) -> bool:
        return True
