"""Provide parts that several architectures share: outputs, settings in the plans, resizing."""

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
    """Base class of decoders, with the attributes that nnU-Net needs: `deep_supervision` and `seg_layers`.

    Args:
        widths: Channels of each head's input, finest first.
        num_classes: Number of channels of each head's output.
        deep_supervision: Initial state of the switch, which nnU-Net sets later.
        bias: True if the heads have a bias.
        convolution: Class of the heads.
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
        """Return the only output, as a list while deep supervision is on."""
        return [segmentation] if self.deep_supervision else segmentation


class OneOutput(Architecture):
    """Base class of architectures for 2D with one output, which take patches of any size.

    Args:
        strides: Strides in the plans, which nnU-Net reads; here they only give the number of dimensions.
        features: Channels of the features that `encode` returns, finest first.
        pretrained: Folder or name of the pretrained weights, None for random weights (see Architecture).

    Raises:
        GuidinoError: If the strides are those of volumes.
    """

    dimensions: ClassVar[tuple[int, ...]] = (2,)

    def __init__(self, strides: Sequence[Sequence[int]], features: Sequence[int], pretrained: str | None = None):
        super().__init__(pretrained)
        check_dimensions(type(self), strides)
        self.features = tuple(features)

    @classmethod
    def planned(cls, configuration: Mapping[str, Any], /, **settings: Any) -> dict[str, Any]:
        """Return the strides with which nnU-Net gives the only output the weight one, and all settings."""
        strides = [[1, 1]] + [[2, 2]] * (strides_for(outputs=1) - 1)
        return {"strides": strides, **with_defaults(cls, settings)}

    @property
    def description(self) -> Description:
        return Description(type(self).__name__, outputs=1, divisor=(1, 1), features=self.features)


def check_dimensions(architecture: type[Architecture], strides: Sequence[Sequence[int]]) -> int:
    """Return the number of dimensions of the strides.

    Raises:
        GuidinoError: If the architecture is not for this number of dimensions.
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
    """Return all settings of an architecture, so that plans hold them all: the given ones, and defaults for the rest.

    Raises:
        GuidinoError: If the architecture has no setting of a name.
    """
    parameters = dict(inspect.signature(architecture).parameters)
    for name in ("input_channels", "num_classes", "deep_supervision", "strides"):  # set by nnU-Net or planned
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
    """Resize a tensor by bilinear or trilinear interpolation; return it unchanged if it has the size.

    Shape:
        (B, C, *any) -> (B, C, *size)
    """
    if tuple(tensor.shape[2:]) == tuple(size):
        return tensor
    mode = "bilinear" if tensor.ndim == 4 else "trilinear"
    return F.interpolate(tensor, size=tuple(size), mode=mode, align_corners=align_corners)


def cropped(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Crop a tensor to the first `size` entries of each axis, which removes the padding behind them.

    Shape:
        (B, C, *at least size) -> (B, C, *size)
    """
    index: Any = (..., *(slice(side) for side in size))
    return tensor[index]


def padded(tensor: Tensor, multiple: int) -> Tensor:
    """Append zeros until both sides are multiples.

    Shape:
        (B, C, H, W) -> (B, C, ⌈H / multiple⌉ · multiple, ⌈W / multiple⌉ · multiple)
    """
    height, width = tensor.shape[-2:]
    return F.pad(tensor, (0, -width % multiple, 0, -height % multiple))


def channels_last(tensor: Tensor) -> Tensor:
    """Move the channels to the end: (B, C, H, W) -> (B, H, W, C)."""
    return tensor.permute(0, 2, 3, 1)


def channels_first(tensor: Tensor) -> Tensor:
    """Move the channels to the front: (B, H, W, C) -> (B, C, H, W)."""
    return tensor.permute(0, 3, 1, 2)


def over_channels(layer: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """Apply a layer for the last axis to the channels.

    Shape:
        (B, C, H, W) -> (B, C', H, W)
    """
    return channels_first(layer(channels_last(tensor)))


def rising(rate: float, blocks: int) -> list[float]:
    """Return the rate of drop path for each block, rising from zero to `rate`."""
    return [rate * index / max(1, blocks - 1) for index in range(blocks)]


def neighbour_mean(tensor: Tensor) -> Tensor:
    """Return the mean of each pixel and its neighbours within the image.

    Shape:
        (B, C, *any) -> the same
    """
    dimensions = tensor.ndim - 2
    pool = F.avg_pool2d if dimensions == 2 else F.avg_pool3d
    if min(tensor.shape[2:]) >= 3:
        return pool(tensor, 3, stride=1, padding=1, count_include_pad=False)
    # torch refuses to pool an axis that is shorter than the window, even if its padding makes it long enough.
    border = (1,) * (2 * dimensions)
    inside = pool(F.pad(torch.ones_like(tensor[:1, :1]), border), 3, stride=1)
    return pool(F.pad(tensor, border), 3, stride=1) / inside
