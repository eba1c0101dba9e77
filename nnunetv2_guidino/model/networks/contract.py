"""Define the contract of a segmentation network, and describe nnU-Net's planned networks in the same terms.

An architecture is a subclass of Architecture in a file of its own, with a line in lists.ARCHITECTURES. It may use
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

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.source import EncoderSource, find_encoder

USE = "plan with --set architecture.pretrained=FOLDER"


def nearest_multiples(patch_size: Sequence[int], divisor: Sequence[int]) -> list[int]:
    """Return the multiple of the divisor nearest to each side in pixels, not zero; of two equally near, the larger."""
    return [max(1, (2 * side + by) // (2 * by)) * by for side, by in zip(patch_size, divisor, strict=True)]


@dataclass(frozen=True)
class Description:
    """A description of a network. For a foreign network, most of it may be unknown.

    Args:
        name: Name of the network's class.
        outputs: Number of segmentations that it returns while deep supervision is on, finest first; None if unknown.
        divisor: Number for each axis that must divide the side of a patch; None if unknown.
        features: Channels of the features between encoder and decoder (see `encode`), finest first; empty if the
            network cannot be split there. An entry is None if its channels are unknown.
        gates: Names in lists.GATE_POSITIONS at which the network takes a guide; None for all that its features allow.
    """

    name: str
    outputs: int | None = None
    divisor: tuple[int, ...] | None = None
    features: tuple[int | None, ...] = ()
    gates: tuple[str, ...] | None = None

    def check_patch(self, patch_size: Sequence[int]) -> None:
        """Check that the network can take a patch of this size in pixels.

        Raises:
            GuidinoError: If it cannot. The error names the nearest size that it can take.
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
        """Check that nnU-Net weighs the outputs correctly with these strides.

        nnU-Net derives the number of weights from the strides: one less than their entries, and the last weight is
        zero. Two entries leave no weight (0/0), and nnU-Net silently cuts outputs or weights without a counterpart.

        Raises:
            GuidinoError: If it does not. The error names the right number of entries.
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
    """Return the number of entries in `strides` for which nnU-Net weighs so many outputs as in its own networks.

    A single output needs three entries. They give two weights, one and zero, and the second has no output.
    """
    return 3 if outputs == 1 else outputs + 1


class Architecture(nn.Module):
    """A segmentation network that plans may name as their network_class_name. Stock nnU-Net trains it too.

    nnU-Net calls the constructor with `input_channels`, `num_classes`, `deep_supervision` and the plans' arch_kwargs.
    It does not pass the patch size or the normalisation, so a network that needs them has them in arch_kwargs. nnU-Net
    applies a function `initialize`, if the class has one, to every submodule, so a network with pretrained parts has
    none. nnU-Net sets `decoder.deep_supervision`. While it is on, the network returns a list of its `outputs`
    segmentations, finest first, also if there is only one. While it is off, the network returns the finest alone. The
    network builds all heads in both states, and every head that it builds has its output returned. Heads are called
    `decoder.seg_layers`, because -pretrained_weights leaves this name out.

    A network with an encoder and a decoder implements `encode` and `decode`, and the inherited `forward` calls both.
    Another network implements `forward` and describes no features.

    A network with a pretrained part has the setting `pretrained`, passes it to this constructor and implements
    `load_weights`. The constructor loads nothing, since predictions call it too. Our trainers call `load_pretrained`
    and write `pretrained_source` into the plans, beside arch_kwargs. With a trainer that does not, `forward` raises an
    error.

    Args:
        pretrained: Source of the pretrained part, a folder or a name on the Hugging Face hub. None if the part starts
            at random or does not exist.
    """

    dimensions: ClassVar[tuple[int, ...]] = (2, 3)  # numbers of spatial dimensions that it supports
    published_weights: ClassVar[str | None] = None  # name on the hub of the weights from which its paper starts
    decoder: Any

    def __init__(self, pretrained: str | None = None):
        super().__init__()
        self.pretrained = pretrained
        self.pretrained_source: EncoderSource | None = None  # set when the weights are loaded
        self.lacks_pretrained = pretrained is not None
        self.register_load_state_dict_post_hook(_has_all_weights)  # type: ignore[no-untyped-call]

    @classmethod
    def lives_in(cls) -> str:
        """Return the supported dimensions in words, for messages."""
        return " and ".join(f"{count}D" for count in cls.dimensions)

    @classmethod
    def planned(cls, configuration: Mapping[str, Any], /, **settings: Any) -> dict[str, Any]:
        """Return the arch_kwargs for the plans: `strides` always, and everything else that the network needs.

        nnU-Net reads the number of outputs and their scales from the strides (see `strides_for`).

        Args:
            configuration: Configuration that nnU-Net planned.
            settings: Settings of the network, such as its width; missing settings are written with their defaults.
        """
        raise NotImplementedError

    @classmethod
    def planned_widths(cls, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that make the network as wide and as deep as nnU-Net planned its own network.

        Raises:
            GuidinoError: If the network's widths cannot follow the planned ones; most networks' cannot.
        """
        raise GuidinoError(f"{cls.__name__} cannot be as wide as planned: its widths depend on each other")

    @property
    def description(self) -> Description:
        """Describe the network."""
        raise NotImplementedError

    def encode(self, patch: Tensor) -> list[Tensor]:
        """Return the features, finest first.

        Shape:
            (B, n, …) -> a list of (B, C_i, …)
        """
        raise NotImplementedError

    def decode(self, features: list[Tensor], size: Sequence[int]) -> Tensor | list[Tensor]:
        """Return the outputs for the features and the patch's size in pixels.

        Shape:
            a list of (B, C_i, …) -> (B, classes, *size), or a list of segmentations with deep supervision
        """
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
        """Load the weights that `pretrained` names, if any, and describe them in `pretrained_source`.

        Raises:
            GuidinoError: If the weights are missing or do not fit.
        """
        if self.pretrained is not None:
            folder = find_encoder(self.pretrained, USE)
            self.pretrained_source = self.load_weights(folder, self.pretrained)
            self.lacks_pretrained = False

    def load_weights(self, folder: Path, name: str) -> EncoderSource:
        """Load the pretrained part.

        Args:
            folder: Folder with config.json and safetensors, as find_encoder returns it.
            name: Name that the user gave.

        Returns:
            A description of the loaded weights.
        """
        raise NotImplementedError


def _has_all_weights(network: Architecture, incompatible_keys: object) -> None:
    network.lacks_pretrained = False
    network.pretrained_source = None  # the state dict has replaced the pretrained weights


def describe(network: Any) -> Description:
    """Describe a network; nnU-Net's planned networks are recognised by their encoder and decoder."""
    if isinstance(network, Architecture):
        return network.description
    name = type(network).__name__
    if not (hasattr(network, "encoder") and hasattr(network, "decoder")):
        return Description(name)
    try:
        channels, strides = network.encoder.output_channels, network.encoder.strides
        divisor = np.prod(np.asarray(strides, dtype=int).reshape(len(channels), -1), axis=0)
    except (AttributeError, TypeError, ValueError):  # a foreign encoder has no such attributes, or uses them otherwise
        return Description(name)
    return Description(
        name,
        outputs=len(channels) - 1,
        divisor=tuple(map(int, divisor)),
        features=tuple(channels),
    )


def encode(network: Any, patch: Tensor) -> list[Tensor]:
    """Return the features between encoder and decoder, finest first: (B, n, …) -> a list of (B, C_i, …)."""
    return list(network.encode(patch) if isinstance(network, Architecture) else network.encoder(patch))


def decode(network: Any, features: list[Tensor], size: Sequence[int]) -> Any:
    """Return the outputs of a network for its features and the patch's size in pixels."""
    return network.decode(features, size) if isinstance(network, Architecture) else network.decoder(features)
