"""Building blocks of several architectures: outputs as nnU-Net wants them, settings as plans hold them, resizing."""

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
    """A decoder as nnU-Net expects it: it has a switch of deep supervision, and heads that fine-tuning leaves out.

    Args:
        widths: Channels in front of each head, finest first.
        num_classes: The number of classes of each head.
        deep_supervision: The switch, which nnU-Net sets anew later.
        bias: Give the heads a bias.
        convolution: The class of the heads.
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
        """Return the one output, as a list while deep supervision is on."""
        return [segmentation] if self.deep_supervision else segmentation


class OneOutput(Architecture):
    """An architecture for 2D with one output, which takes patches of any size.

    Args:
        strides: The strides in the plans. nnU-Net reads them there; here they give the number of dimensions.
        features: Channels of the features that `encode` returns, finest first.
        pretrained: The source of the pretrained part, as in Architecture.

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
        """Return all settings, and strides with which nnU-Net gives the one output weight one."""
        strides = [[1, 1]] + [[2, 2]] * (strides_for(outputs=1) - 1)
        return {"strides": strides, **with_defaults(cls, settings)}

    @property
    def description(self) -> Description:
        return Description(type(self).__name__, outputs=1, divisor=(1, 1), features=self.features)


def check_dimensions(architecture: type[Architecture], strides: Sequence[Sequence[int]]) -> int:
    """Return the number of dimensions of the strides.

    Raises:
        GuidinoError: If the architecture does not support this number.
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
    """Return all settings of an architecture for the plans: the given settings, and the defaults of the others.

    Raises:
        GuidinoError: If the architecture has no setting of a given name.
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
    """Resize bilinearly or trilinearly; return a tensor of the right size as it is.

    Shape:
        (B, C, *any) -> (B, C, *size)
    """
    if tuple(tensor.shape[2:]) == tuple(size):
        return tensor
    mode = "bilinear" if tensor.ndim == 4 else "trilinear"
    return F.interpolate(tensor, size=tuple(size), mode=mode, align_corners=align_corners)


def cropped(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Cut the padding behind `size` from each axis.

    Shape:
        (B, C, *at least size) -> (B, C, *size)
    """
    index: Any = (..., *(slice(side) for side in size))
    return tensor[index]


def padded(tensor: Tensor, multiple: int) -> Tensor:
    """Pad with zeros behind, so that both sides are multiples.

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
    # torch refuses to pool an axis that is shorter than the window, though it would be long enough with its padding.
    border = (1,) * (2 * dimensions)
    inside = pool(F.pad(torch.ones_like(tensor[:1, :1]), border), 3, stride=1)
    return pool(F.pad(tensor, border), 3, stride=1) / inside
