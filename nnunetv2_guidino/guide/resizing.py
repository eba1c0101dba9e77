"""Resizing of images (B, C, H, W) and volumes (B, C, D, H, W)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nnunetv2_guidino.guide.precision import without_autocast


def area_average(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Each value of the result is the mean over its share of the area, or volume, whatever the two sizes.

    Adaptive pooling is not that where the sizes do not divide: it widens each share to whole pixels, so that they
    overlap. Here each axis is multiplied by a small matrix of shares.

    Shape:
        (B, C, *any), of a floating-point type -> (B, C, *size)
    """
    with without_autocast(tensor):
        for axis in reversed(range(2, tensor.ndim)):
            source, target = tensor.shape[axis], size[axis - 2]
            if source != target:
                shares = _shares(source, target, tensor.device).to(tensor.dtype)
                tensor = (tensor.movedim(axis, -1) @ shares.T).movedim(-1, axis)
        return tensor


def _shares(source: int, target: int, device: torch.device) -> Tensor:
    if torch.compiler.is_compiling():  # a graph holds its own
        return _computed_shares(source, target, device)
    return _kept_shares(source, target, device)


@functools.lru_cache(maxsize=256)
def _kept_shares(source: int, target: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # what is made while predicting may serve a training
        return _computed_shares(source, target, device)


def _computed_shares(source: int, target: int, device: torch.device) -> Tensor:
    """How much of each of `target` equal parts of an axis lies in each of its `source` pixels.

    Shape:
        (target, source), each row summing to one
    """
    # In whole numbers: the axis is source · target long, a part `source`, a pixel `target`.
    part = torch.arange(target, device=device)[:, None] * source
    pixel = torch.arange(source, device=device) * target
    overlap = torch.minimum(part + source, pixel + target) - torch.maximum(part, pixel)
    return overlap.clamp(min=0) / source


def interpolate(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, or trilinear.

    Shape:
        (B, C, *any) -> (B, C, *size)
    """
    return F.interpolate(tensor, size=tuple(size), mode="bilinear" if tensor.ndim == 4 else "trilinear")
