"""What several architectures are built from: outputs as nnU-Net wants them, settings as plans hold them, resizing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.networks.contract import Architecture, Description, strides_for


class Decoder(nn.Module):
    """What nnU-Net looks for in a decoder: the switch of deep supervision, and heads that fine-tuning leaves out.

    Args:
        widths: Channels in front of each head, finest first.
        num_classes: Of each head.
        deep_supervision: nnU-Net's, who sets it anew later.
        bias: Of the heads.
        convolution: Of the heads.
    """

    def __init__(
        self,
        widths: Sequence[int],
        num_classes: int,
        deep_supervision: bool,
        bias: bool = True,
        convolution: type[nn.Module] = nn.Conv2d,
    ):
        super().__init__()
        self.deep_supervision = deep_supervision
        self.seg_layers = nn.ModuleList(convolution(width, num_classes, 1, bias=bias) for width in widths)

    def one_of_list(self, segmentation: Tensor) -> Tensor | list[Tensor]:
        """The one output there is, as a list while deep supervision is on."""
        return [segmentation] if self.deep_supervision else segmentation


class OneOutput(Architecture):
    """An architecture for 2D with one output, which takes patches of any size.

    Args:
        strides: As the plans hold them. nnU-Net reads them there; here they say how many dimensions there are.
        features: Channels of what `encode` returns, finest first.
        pretrained: As Architecture has it.

    Raises:
        GuidinoError: For volumes.
    """

    dimensions: ClassVar[tuple[int, ...]] = (2,)

    def __init__(self, strides: Sequence[Sequence[int]], features: Sequence[int], pretrained: str | None = None):
        super().__init__(pretrained)
        check_dimensions(type(self), strides)
        self.features = tuple(features)

    @classmethod
    def planned(cls, configuration: Mapping[str, Any], /, **settings: Any) -> dict[str, Any]:
        """The strides with which nnU-Net gives one output weight one, and every setting."""
        strides = [[1, 1]] + [[2, 2]] * (strides_for(outputs=1) - 1)
        return {"strides": strides, **with_defaults(cls, settings)}

    @property
    def description(self) -> Description:
        return Description(type(self).__name__, outputs=1, divisor=(1, 1), features=self.features)


def check_dimensions(architecture: type[Architecture], strides: Sequence[Sequence[int]]) -> int:
    """How many dimensions the strides have.

    Raises:
        GuidinoError: If the architecture does not live there.
    """
    dimensions = len(strides[0])
    if dimensions not in architecture.dimensions:
        raise GuidinoError(
            f"{architecture.__name__} is a network for {architecture.lives_in()}, but "
            f"architecture.arch_kwargs.strides in the plans has {dimensions} dimensions; plan it for the configuration "
            "2d"
        )
    return dimensions


def with_defaults(architecture: type[Architecture], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of an architecture, so that plans say them all: those given, and its own for the others.

    Raises:
        GuidinoError: For a setting that it does not have.
    """
    parameters = dict(inspect.signature(architecture).parameters)
    for name in ("input_channels", "num_classes", "deep_supervision", "strides"):  # nnU-Net's, and planned ones
        del parameters[name]
    for name in settings:
        if name not in parameters:
            known = ", ".join(parameters)
            near = lists.did_you_mean(name, parameters)
            raise GuidinoError(f"{architecture.__name__} has no setting {name!r}; it has {known}{near}")
    defaults = {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}
    values = {**defaults, **settings}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def resized(tensor: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Bilinear, or trilinear; as it is where the size is right.

    Shape:
        (B, C, *any) -> (B, C, *size)
    """
    if tuple(tensor.shape[2:]) == tuple(size):
        return tensor
    mode = "bilinear" if tensor.ndim == 4 else "trilinear"
    return F.interpolate(tensor, size=tuple(size), mode=mode, align_corners=align_corners)


def cropped(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """The first of each axis: what lies behind is padding.

    Shape:
        (B, C, *at least size) -> (B, C, *size)
    """
    index: Any = (..., *(slice(side) for side in size))
    return tensor[index]


def padded(tensor: Tensor, multiple: int) -> Tensor:
    """With zeros behind, so that both sides are multiples.

    Shape:
        (B, C, H, W) -> (B, C, ⌈H / multiple⌉ · multiple, ⌈W / multiple⌉ · multiple)
    """
    height, width = tensor.shape[-2:]
    return F.pad(tensor, (0, -width % multiple, 0, -height % multiple))


def channels_last(tensor: Tensor) -> Tensor:
    """The channels last: (B, C, H, W) -> (B, H, W, C)."""
    return tensor.permute(0, 2, 3, 1)


def channels_first(tensor: Tensor) -> Tensor:
    """The channels first: (B, H, W, C) -> (B, C, H, W)."""
    return tensor.permute(0, 3, 1, 2)


def over_channels(layer: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """A layer for the last axis, applied to the channels.

    Shape:
        (B, C, H, W) -> (B, C', H, W)
    """
    return channels_first(layer(channels_last(tensor)))


def rising(rate: float, blocks: int) -> list[float]:
    """Drop path's rate for each block: from zero to `rate`."""
    return [rate * index / max(1, blocks - 1) for index in range(blocks)]


def neighbour_mean(tensor: Tensor) -> Tensor:
    """The mean of each pixel and those around it that lie within the image.

    Shape:
        (B, C, *any) -> the same
    """
    dimensions = tensor.ndim - 2
    pool = F.avg_pool2d if dimensions == 2 else F.avg_pool3d
    if min(tensor.shape[2:]) >= 3:
        return pool(tensor, 3, stride=1, padding=1, count_include_pad=False)
    # torch refuses to pool an axis that is shorter than the window, though it would be long enough with its padding.
    border = (1,) * (2 * dimensions)
    inside = pool(F.pad(torch.ones_like(tensor[:1, :1]), border), 3, stride=1)
    return pool(F.pad(tensor, border), 3, stride=1) / inside
