"""What a segmentation network says of itself: the contract of ours, and how nnU-Net's planned networks are read.

An architecture is a subclass of Architecture in a file of its own, with its line in lists.ARCHITECTURES. It may use
encoders, and knows nothing of guides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_guidino.encoders.source import EncoderSource, find_encoder
from nnunetv2_guidino.errors import GuidinoError

USE = "plan with --set architecture.pretrained=FOLDER"


def nearest_multiples(patch_size: Sequence[int], divisor: Sequence[int]) -> list[int]:
    """The nearest sides that are multiples of the divisor's, one at least; the larger where two are equally near."""
    return [max(1, (2 * side + by) // (2 * by)) * by for side, by in zip(patch_size, divisor, strict=True)]


@dataclass(frozen=True)
class Description:
    """What a network says of itself. A foreign network may leave most of it open.

    Args:
        name: Of its class.
        outputs: How many segmentations it returns while deep supervision is on, finest first; None: not known.
        divisor: What the sides of a patch must be multiples of, along each axis; None: not known.
        features: Channels of the features at which it can be taken apart (see `encode`), finest first; empty if it
            cannot. None for a feature whose channels are not known.
        gates: Where it takes a guide, by the names in lists.GATES; None: wherever its features allow.
    """

    name: str
    outputs: int | None = None
    divisor: tuple[int, ...] | None = None
    features: tuple[int | None, ...] = ()
    gates: tuple[str, ...] | None = None

    def check_patch(self, patch_size: Sequence[int]) -> None:
        """Refuse a patch that the network cannot take.

        Raises:
            GuidinoError: Naming the nearest that it can.
        """
        if self.divisor is None:
            return
        if len(patch_size) != len(self.divisor):
            raise GuidinoError(f"{self.name} is for {len(self.divisor)} dimensions, not for patch_size {patch_size!r}")
        nearest = nearest_multiples(patch_size, self.divisor)
        if nearest != list(patch_size):
            raise GuidinoError(
                f"patch_size is {list(patch_size)}, but the sides of {self.name} must be multiples of "
                f"{list(self.divisor)}: the nearest is {nearest}"
            )

    def check_strides(self, strides: Sequence[Any]) -> None:
        """Refuse strides from which nnU-Net would weigh the outputs wrongly.

        nnU-Net takes from the strides how many outputs to weigh: one less than there are entries, the last of them
        with weight zero. Two entries leave nothing (0/0), and outputs beyond or short of its count are cut silently.

        Raises:
            GuidinoError: Naming how many entries there must be.
        """
        if self.outputs is None:
            return
        needed = strides_for(self.outputs)
        if len(strides) != needed:
            raise GuidinoError(
                f"architecture.arch_kwargs.strides has {len(strides)} entries, but {self.name} has {self.outputs} "
                f"output{'s' * (self.outputs > 1)} while deep supervision is on, which nnU-Net weighs rightly with "
                f"{needed} entries only"
            )


def strides_for(outputs: int) -> int:
    """How many entries `strides` must have for nnU-Net's loss to weigh that many outputs as it does its own networks'.

    A single output has weight one with three: the second of two scales gets zero, and no output is there for it.
    """
    return 3 if outputs == 1 else outputs + 1


class Architecture(nn.Module):
    """A segmentation network that plans may name as their network_class_name; stock nnU-Net trains it too.

    nnU-Net calls it with `input_channels`, `num_classes`, `deep_supervision` and what the plans have in arch_kwargs:
    neither the patch's size nor the normalisation is told, so a network is indifferent to them or has them there. It
    applies `initialize`, if there is such a function, to every submodule, so that a network with pretrained parts has
    none. It sets `decoder.deep_supervision`: while that is on, the network returns the list of its `outputs`
    segmentations, finest first, and a list of one if it has one; while it is off, the finest alone. All heads are built
    in both states, and every one that is built is returned. Heads are called `decoder.seg_layers`: -pretrained_weights
    leaves those out.

    A network that can be taken apart at its features gives `encode` and `decode`, and its `forward` is both; one that
    cannot gives `forward`, and describes no features.

    A network with a pretrained part has the setting `pretrained`, hands it on to this constructor, and gives
    `load_weights`. Nothing is loaded when it is built, which happens to predict too: our trainers call
    `load_pretrained`, and write `pretrained_source` into the plans, beside arch_kwargs. A trainer that does not is
    refused by `forward`.

    Args:
        pretrained: What the pretrained part is to start from: a folder, or a name on the Hugging Face hub. None: it
            starts at random, or there is no such part.
    """

    dimensions: ClassVar[tuple[int, ...]] = (2, 3)  # in which it lives
    published_weights: ClassVar[str | None] = None  # what its paper starts from, by name on the hub
    decoder: Any

    def __init__(self, pretrained: str | None = None):
        super().__init__()
        self.pretrained = pretrained
        self.pretrained_source: EncoderSource | None = None  # what was loaded
        self.lacks_pretrained = pretrained is not None
        self.register_load_state_dict_post_hook(_has_all_weights)  # type: ignore[no-untyped-call]

    @classmethod
    def lives_in(cls) -> str:
        """Its dimensions in words, for messages."""
        return " and ".join(f"{count}D" for count in cls.dimensions)

    @classmethod
    def planned(cls, configuration: Mapping[str, Any], /, **settings: Any) -> dict[str, Any]:
        """The arch_kwargs that plans get, given the planned configuration: `strides` always, and what else it needs.

        Settings are the network's own, such as how wide it is; those not given are written with their defaults.

        nnU-Net reads from the strides how many outputs there are and at which scales (see `strides_for`).
        """
        raise NotImplementedError

    @classmethod
    def planned_widths(cls, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """The settings by which it is as wide and as deep as nnU-Net planned its own network.

        Raises:
            GuidinoError: If its widths cannot follow the planned ones, as most cannot.
        """
        raise GuidinoError(f"{cls.__name__} cannot be as wide as planned: its widths depend on each other")

    @property
    def description(self) -> Description:
        """What it says of itself."""
        raise NotImplementedError

    def encode(self, patch: Tensor) -> list[Tensor]:
        """The features, finest first.

        Shape:
            (B, n, …) -> a list of (B, C_i, …)
        """
        raise NotImplementedError

    def decode(self, features: list[Tensor], size: Sequence[int]) -> Tensor | list[Tensor]:
        """The outputs, given the features and the patch's size."""
        raise NotImplementedError

    def forward(self, patch: Tensor) -> Tensor | list[Tensor]:
        if self.lacks_pretrained and self.training and torch.is_grad_enabled():
            raise GuidinoError(
                f"{type(self).__name__} is to start from {self.pretrained}, which this trainer does not load: train it "
                "with -tr nnUNetTrainerGuiDINOBaseline or another whose name begins with nnUNetTrainerGuiDINO, bring "
                "all weights with -pretrained_weights, or plan with --set architecture.pretrained=null"
            )
        return self.decode(self.encode(patch), patch.shape[2:])

    def load_pretrained(self) -> None:
        """Load what `pretrained` names, if it names anything, and describe it in `pretrained_source`.

        Raises:
            GuidinoError: If it is not there or does not fit.
        """
        if self.pretrained is not None:
            folder = find_encoder(self.pretrained, USE)
            self.pretrained_source = self.load_weights(folder, self.pretrained)
            self.lacks_pretrained = False

    def load_weights(self, folder: Path, name: str) -> EncoderSource:
        """Load the pretrained part.

        Args:
            folder: With config.json and safetensors, as find_encoder returns it.
            name: What the user called it.
        """
        raise NotImplementedError


def _has_all_weights(network: Architecture, incompatible_keys: object) -> None:
    network.lacks_pretrained = False
    network.pretrained_source = None  # the state dict's are others


def describe(network: Any) -> Description:
    """What a network says of itself; nnU-Net's planned networks are known by their encoder and decoder."""
    if isinstance(network, Architecture):
        return network.description
    name = type(network).__name__
    if not (hasattr(network, "encoder") and hasattr(network, "decoder")):
        return Description(name)
    try:
        channels, strides = network.encoder.output_channels, network.encoder.strides
        divisor = np.prod(np.asarray(strides, dtype=int).reshape(len(channels), -1), axis=0)
    except (AttributeError, TypeError, ValueError):  # there is none, or it means something else there
        return Description(name)
    return Description(
        name,
        outputs=len(channels) - 1,
        divisor=tuple(map(int, divisor)),
        features=tuple(channels),
    )


def encode(network: Any, patch: Tensor) -> list[Tensor]:
    """The features at which a network is taken apart, finest first."""
    return list(network.encode(patch) if isinstance(network, Architecture) else network.encoder(patch))


def decode(network: Any, features: list[Tensor], size: Sequence[int]) -> Any:
    """The outputs of a network, given its features and the patch's size."""
    return network.decode(features, size) if isinstance(network, Architecture) else network.decoder(features)
