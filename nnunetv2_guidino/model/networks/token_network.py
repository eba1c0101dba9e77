"""A segmentation network on a pretrained vision transformer's tokens: the base of SegDINO and its relatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from nnunetv2_guidino.config import DEFAULT_ENCODER, LoRA
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.architecture import build_vit
from nnunetv2_guidino.model.encoders.families import family_of
from nnunetv2_guidino.model.encoders.source import EncoderSource
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder
from nnunetv2_guidino.model.networks.building_blocks import OneOutput

TUNING = ("frozen", "lora", "full")


def planned_lora(arch_kwargs: Mapping[str, Any]) -> LoRA | None:
    """Return the settings of the adapters in plans' arch_kwargs; None without adapters.

    Raises:
        GuidinoError: If a setting is invalid. The error names its key.
    """
    if arch_kwargs.get("tuning") != "lora":
        return None
    settings = arch_kwargs.get("lora")
    return LoRA() if settings is None else LoRA.from_plans(settings, "architecture.arch_kwargs.lora")


def depth_of(encoder_config: Mapping[str, Any]) -> int:
    """Return the number of a transformer's blocks; timm's configurations do not hold it, so such a network is built."""
    if "num_hidden_layers" in encoder_config:
        return int(encoder_config["num_hidden_layers"])
    with torch.device("meta"):
        return len(family_of(encoder_config["model_type"]).blocks(build_vit(dict(encoder_config))))


class TokenNetwork(OneOutput):
    """A segmentation network on tokens: the base of SegDINO and its relatives.

    The transformer is random until `load_pretrained` or `load_state_dict` gives it weights. Its configuration is enough
    to build it, so a prediction needs neither hub nor folder.

    Args:
        input_channels: The number of the patch's channels. A cascade appends channels to the image's; the transformer
            does not see them.
        num_classes: The number of the output's classes.
        deep_supervision: nnU-Net's switch. It does not tell training from predicting, so both have LoRA's adapters.
        strides: The strides in nnU-Net's plans.
        encoder_config: The transformer's architecture, as read_encoder_config returns it.
        normalization_schemes: nnU-Net's scheme for each image channel.
        layers: The blocks whose tokens are used, counted from 1.
        features: Channels of the features that `encode` returns.
        tuning: "frozen", "lora", or "full", which trains the transformer too.
        lora: The settings of the adapters; None for the defaults.
        min_input_size: Pixels of the shorter side of the transformer's input.
        pretrained: The transformer's folder or its name on the hub; None starts at random.

    Raises:
        GuidinoError: If `tuning` has another value.
    """

    published_weights: ClassVar[str | None] = DEFAULT_ENCODER

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool,
        strides: Sequence[Sequence[int]],
        encoder_config: dict[str, Any],
        normalization_schemes: Sequence[str],
        layers: Sequence[int],
        features: Sequence[int],
        tuning: str,
        lora: Mapping[str, Any] | None,
        min_input_size: int,
        pretrained: str | None,
    ):
        super().__init__(strides, features, pretrained)
        if tuning not in TUNING:
            raise GuidinoError(f"{type(self).__name__}: tuning is {tuning!r}; expected one of {', '.join(TUNING)}")
        if len(normalization_schemes) > input_channels:
            raise GuidinoError(
                f"{type(self).__name__}: normalization_schemes has {len(normalization_schemes)} entries for "
                f"{input_channels} input channels; expected one per image channel"
            )
        layer: Any = layers[0] if len(layers) == 1 else list(layers)
        adapters = planned_lora({"tuning": tuning, "lora": lora})
        self.token_encoder = TokenEncoder(
            encoder_config, layer, normalization_schemes, min_input_size, adapters, trainable=tuning == "full"
        )
        self.layers = list(layers)
        self.width = self.token_encoder.channels // len(layers)

    @classmethod
    def planned(cls, configuration: Mapping[str, Any], /, **settings: Any) -> dict[str, Any]:
        """Return all settings: the planned normalisation, the given `encoder_config`, and the others.

        Raises:
            GuidinoError: If `encoder_config` is missing.
        """
        if "encoder_config" not in settings:
            raise GuidinoError(f"{cls.__name__} needs an encoder: the setting encoder_config, its architecture")
        schemes = list(configuration["normalization_schemes"])
        settings = {"normalization_schemes": schemes, **settings}
        if settings.get("tuning") == "lora" and settings.get("lora") is None:
            settings["lora"] = asdict(LoRA())
        if "layers" not in settings:
            settings["layers"] = cls.default_layers(settings["encoder_config"])
        return super().planned(configuration, **settings)

    @classmethod
    def default_layers(cls, encoder_config: Mapping[str, Any]) -> list[int]:
        """Return the blocks at a quarter, a half, three quarters and the end, which SegDINO uses.

        Raises:
            GuidinoError: If the transformer has fewer than four blocks.
        """
        depth = depth_of(encoder_config)
        if depth < 4:
            raise GuidinoError(
                f"{cls.__name__} uses four blocks of its encoder, which has {depth}; give the setting layers, numbers "
                "of blocks from 1"
            )
        return [5, 12, 18, 24] if depth == 24 else [depth * quarter // 4 for quarter in (1, 2, 3, 4)]

    def token_maps(self, patch: Tensor) -> list[Tensor]:
        """Return the tokens of each layer, through the transformer's last norm.

        Shape:
            (B, n, H, W) -> [(B, C, h, w) for each layer]
        """
        return list(self.token_encoder(patch).split(self.width, dim=1))

    def encode(self, patch: Tensor) -> list[Tensor]:
        return self.features_of(self.token_maps(patch))

    def features_of(self, maps: list[Tensor]) -> list[Tensor]:
        """Return the features of `encode` for the tokens of `token_maps`, which a guide may have computed already."""
        raise NotImplementedError

    def load_weights(self, folder: Path, name: str) -> EncoderSource:
        """Load the transformer's weights, as TokenEncoder.load_pretrained does."""
        return self.token_encoder.load_pretrained(folder, name)

    def decode(self, features: list[Tensor], size: Sequence[int]) -> Tensor | list[Tensor]:
        return self.decoder(features, size)
