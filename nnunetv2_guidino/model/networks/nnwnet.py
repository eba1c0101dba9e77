"""nnWNet (CVPR 2025): two U-Nets one after the other, with a global branch beside each level; 2D and 3D."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.networks.building_blocks import (
    Decoder,
    check_dimensions,
    cropped,
    resized,
    with_defaults,
)
from nnunetv2_guidino.model.networks.contract import Architecture, Description
from nnunetv2_guidino.model.networks.nnwnet_blocks import (
    LAYERS,
    GlobalBlock,
    Layers,
    Residual,
    convolved,
    downs,
    raised,
)

# Of the five levels: the paper's in 2D, and its trainer's in 3D. The global branch has half of them.
WIDTHS = {2: (16, 32, 64, 128, 256), 3: (32, 64, 128, 256, 320)}


class NNWNet(Architecture):
    """nnWNet, with a level for each of the strides, and an output for each level but the coarsest.

    Two encoders and two decoders follow each other, so there is no single place between encoder and decoder, and the
    network takes a guide at its input. The paper's attention is a mean over 3×3 pixels in the published network.

    Args:
        input_channels: The number of the patch's channels.
        num_classes: The number of each output's classes.
        deep_supervision: nnU-Net's switch.
        strides: The strides of each level along each axis; the first are ones.
        widths: Channels of each level; None for the paper's, with five levels.
        global_widths: Channels of the global branch at each level; None for half of `widths`.
        norm: "batch", as published, or "instance".

    Shape:
        (B, n, *size) -> (B, classes, *size), or with deep supervision a list of them at the strides

    Raises:
        GuidinoError: If the numbers of levels and widths differ, or if there is no such norm.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool,
        strides: Sequence[Sequence[int]],
        widths: Sequence[int] | None = None,
        global_widths: Sequence[int] | None = None,
        norm: str = "batch",
    ):
        super().__init__()
        dimensions = check_dimensions(type(self), strides)
        widths = WIDTHS[dimensions] if widths is None else widths
        global_widths = [width // 2 for width in widths] if global_widths is None else global_widths
        if not len(strides) == len(widths) == len(global_widths) > 1:
            raise GuidinoError(
                f"NNWNet: architecture.arch_kwargs has {len(strides)} strides, {len(widths)} widths and "
                f"{len(global_widths)} global_widths; expected one of each for each of two levels or more"
            )
        if norm not in LAYERS:
            raise GuidinoError(f"NNWNet: norm is {norm!r}; expected one of {', '.join(LAYERS)}")
        layers = LAYERS[norm][dimensions]
        self.outputs = len(widths) - 1
        self.scales = np.cumprod(strides, axis=0).tolist()
        self.stem = nn.Sequential(convolved(input_channels, widths[0], layers), convolved(widths[0], widths[0], layers))
        self.first_encoder = FirstEncoder(widths, global_widths, strides, layers)
        self.first_decoder = FirstDecoder(widths, global_widths, layers)
        self.second_encoder = SecondEncoder(widths, global_widths, strides, layers)
        self.decoder = SecondDecoder(widths, global_widths, num_classes, deep_supervision, layers)

    @classmethod
    def planned(cls, configuration: Mapping[str, Any], /, **settings: Any) -> dict[str, Any]:
        """Return all settings: a level for each width (five by default), and the planned strides as far as they go."""
        patch_size = configuration["patch_size"]
        widths = settings.setdefault("widths", list(WIDTHS[len(patch_size)]))
        settings.setdefault("global_widths", [channels // 2 for channels in widths])
        planned_strides = configuration["architecture"]["arch_kwargs"]["strides"]
        strides = [list(stride) for stride in planned_strides[: len(widths)]]
        while len(strides) < len(widths):
            side = np.array(patch_size) // np.prod(strides, axis=0)
            strides.append([2 if pixels >= 8 else 1 for pixels in side])
        return {"strides": strides, **with_defaults(cls, settings)}

    @classmethod
    def planned_widths(cls, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """Return widths with a level for each planned stage, as wide as the stage."""
        planned = configuration["architecture"]["arch_kwargs"]
        if "features_per_stage" not in planned:
            raise GuidinoError(f"{cls.__name__} cannot be as wide as planned: the plans have no features_per_stage")
        return {"widths": list(planned["features_per_stage"])}

    @property
    def description(self) -> Description:
        any_size = (1,) * len(self.scales[0])
        return Description("NNWNet", outputs=self.outputs, divisor=any_size, gates=("input",))

    def forward(self, patch: Tensor) -> Tensor | list[Tensor]:
        size = patch.shape[2:]
        if all(side <= by for side, by in zip(size, self.scales[-1], strict=True)):
            # The norms need more than one pixel at the coarsest level.
            patch = F.pad(patch, (0, self.scales[-1][-1] + 1 - size[-1]))
        first = self.stem(patch)
        local, globals_down = self.first_encoder(first)
        both, globals_up = self.first_decoder(local, globals_down)
        bottom, skips = self.second_encoder(both, globals_up)
        outputs: list[Tensor] = self.decoder(bottom, skips)
        if not self.decoder.deep_supervision:
            return cropped(outputs[0], size)
        return [self._as_target(*output_scale, size) for output_scale in zip(outputs, self.scales, strict=False)]

    def _as_target(self, output: Tensor, scale: Sequence[int], size: Sequence[int]) -> Tensor:
        """Resize to the sides of nnU-Net's target, which rounds them; strided convolutions round up."""
        sides = [side / by for side, by in zip(size, scale, strict=True)]
        return resized(cropped(output, [math.ceil(side) for side in sides]), [max(1, round(side)) for side in sides])


class FirstEncoder(nn.Module):
    """The first encoder: it returns the global blocks' features of each level, too.

    Shape:
        (B, L₀, *size) -> the coarsest (B, L_n, …), [(B, G_i, …) for each level]
    """

    def __init__(
        self, widths: Sequence[int], global_widths: Sequence[int], strides: Sequence[Sequence[int]], layers: Layers
    ):
        super().__init__()
        pairs = zip(widths, global_widths, strict=True)
        self.globals = nn.ModuleList(GlobalBlock(width, wide, layers) for width, wide in pairs)
        self.convolutions = nn.ModuleList(convolved(width, width, layers) for width in widths[:-1])
        self.downs = downs(widths, strides, layers)

    def forward(self, local: Tensor) -> tuple[Tensor, list[Tensor]]:
        kept = [self.globals[0](local)]
        for convolution, down, block in zip(self.convolutions, self.downs, self.globals[1:], strict=True):
            local = down(convolution(local))
            kept.append(block(local))
        return local, kept


class FirstDecoder(nn.Module):
    """The first decoder: each level joins the features from below with the first encoder's global features.

    Shape:
        the coarsest local, the globals -> the finest (B, L₀ + G₀, …), [globals of each level, the coarsest as it came]
    """

    def __init__(self, widths: Sequence[int], global_widths: Sequence[int], layers: Layers):
        super().__init__()
        joined = [width + wide for width, wide in zip(widths, global_widths, strict=True)]
        inputs = [*joined[1:-1], widths[-1]]  # the coarsest level's global goes to the second half alone
        self.blocks = nn.ModuleList(Residual(i, width, layers) for i, width in zip(inputs, widths[1:], strict=True))
        self.ups = nn.ModuleList(convolved(below, width, layers, bias=False) for width, below in pairwise(widths))
        self.globals = nn.ModuleList(
            GlobalBlock(i, wide, layers) for i, wide in zip(joined[:-1], global_widths[:-1], strict=True)
        )

    def forward(self, both: Tensor, kept: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        globals_up = kept[-1:]
        for level in reversed(range(len(self.ups))):
            both = torch.cat((raised(self.ups[level], self.blocks[level](both), kept[level]), kept[level]), dim=1)
            globals_up.insert(0, self.globals[level](both))
        return both, globals_up


class SecondEncoder(nn.Module):
    """The second encoder: each level joins the features from above with the first decoder's global features.

    The finest level keeps the first decoder's global features, and the coarsest the first encoder's.

    Shape:
        (B, L₀ + G₀, *size), globals of each level -> the coarsest (B, L_n + G_n, …), [globals of the finer levels]
    """

    def __init__(
        self, widths: Sequence[int], global_widths: Sequence[int], strides: Sequence[Sequence[int]], layers: Layers
    ):
        super().__init__()
        joined = [width + wide for width, wide in zip(widths, global_widths, strict=True)]
        self.blocks = nn.ModuleList(
            Residual(i, width, layers) for i, width in zip(joined[:-1], widths[:-1], strict=True)
        )
        self.downs = downs(widths, strides, layers)
        self.globals = nn.ModuleList(
            GlobalBlock(i, wide, layers) for i, wide in zip(joined[1:-1], global_widths[1:-1], strict=True)
        )

    def forward(self, both: Tensor, globals_up: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        kept = globals_up[:1]
        for level, (block, down) in enumerate(zip(self.blocks, self.downs, strict=True)):
            both = torch.cat((down(block(both)), globals_up[level + 1]), dim=1)
            if level < len(self.globals):
                kept.append(self.globals[level](both))
        return both, kept


class SecondDecoder(Decoder):
    """The second decoder, with a head at each level but the coarsest.

    The finest head reads the last residual block. The other heads read their level's enlarged features before the
    second encoder's global features join them.

    Shape:
        the coarsest (B, L_n + G_n, …), globals of the finer levels -> [(B, classes, …) for each of those, finest first]
    """

    def __init__(
        self,
        widths: Sequence[int],
        global_widths: Sequence[int],
        num_classes: int,
        deep_supervision: bool,
        layers: Layers,
    ):
        super().__init__(widths[:-1], num_classes, deep_supervision, convolution=layers.convolution)
        triples = zip(widths, global_widths, strict=True)
        self.blocks = nn.ModuleList(Residual(width + wide, width, layers) for width, wide in triples)
        self.ups = nn.ModuleList(convolved(below, width, layers, bias=False) for width, below in pairwise(widths))

    def forward(self, both: Tensor, kept: list[Tensor]) -> list[Tensor]:
        outputs: list[Tensor] = []
        local = self.blocks[-1](both)
        for level in reversed(range(len(self.ups))):
            up = raised(self.ups[level], local, kept[level])
            local = self.blocks[level](torch.cat((up, kept[level]), dim=1))
            if self.deep_supervision or level == 0:
                outputs.insert(0, self.seg_layers[level](up if level else local))
        return outputs
