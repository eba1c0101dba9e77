"""Resizing of images (B, C, H, W) and volumes (B, C, D, H, W): each axis is multiplied by a small matrix."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nnunetv2_guidino.guide.precision import without_autocast


def area_average(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Each value of the result is the mean over its share of the area, or volume, whatever the two sizes.

    Adaptive pooling is not that where the sizes do not divide: it widens each share to whole pixels, so that they
    overlap.

    Shape:
        (B, C, *any), of a floating-point type -> (B, C, *size)
    """
    return _multiplied(tensor, size, _shares)


def interpolate(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, or trilinear, as torch.nn.functional.interpolate with align_corners=False.

    On a GPU, the backward pass of torch's own adds with atomic operations: it is slow and not reproducible.

    Shape:
        (B, C, *any), of a floating-point type -> (B, C, *size)
    """
    return _multiplied(tensor, size, _neighbours)


def _multiplied(tensor: Tensor, size: Sequence[int], weights: Callable[[int, int, torch.device], Tensor]) -> Tensor:
    """The tensor with each axis that changes its length multiplied by weights of shape (target, source)."""
    make = weights if torch.compiler.is_compiling() else functools.partial(_kept, weights)  # a graph holds its own
    with without_autocast(tensor):
        for axis in reversed(range(2, tensor.ndim)):
            source, target = tensor.shape[axis], size[axis - 2]
            if source == target:
                continue
            matrix = make(source, target, tensor.device).to(tensor.dtype)
            if axis == tensor.ndim - 1:
                tensor = tensor @ matrix.T
            else:  # from the left, so that the result is contiguous, as the features are that it is multiplied with
                behind = tensor.shape[axis + 1 :]
                tensor = torch.unflatten(matrix @ tensor.flatten(axis + 1), -1, behind)
        return tensor


@functools.lru_cache(maxsize=256)
def _kept(
    weights: Callable[[int, int, torch.device], Tensor], source: int, target: int, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # what is made while predicting may serve a training
        return weights(source, target, device)


def _shares(source: int, target: int, device: torch.device) -> Tensor:
    """How much of each of `target` equal parts of an axis lies in each of its `source` pixels.

    Shape:
        (target, source), each row summing to one
    """
    # In whole numbers: the axis is source · target long, a part `source`, a pixel `target`.
    part = torch.arange(target, device=device)[:, None] * source
    pixel = torch.arange(source, device=device) * target
    overlap = torch.minimum(part + source, pixel + target) - torch.maximum(part, pixel)
    return overlap.clamp(min=0) / source


def _neighbours(source: int, target: int, device: torch.device) -> Tensor:
    """How much of each of `source` pixels the centre of each of `target` pixels gets, by its distance from both.

    Shape:
        (target, source), each row summing to one, with at most two entries that are not zero
    """
    # In whole numbers: the axis is 2 · source · target long, and source pixels are 2 · target apart.
    apart = 2 * target
    centre = (torch.arange(target, device=device)[:, None] * 2 + 1) * source - target  # from the first source pixel's
    pixel = torch.arange(source, device=device) * apart
    return (apart - (centre.clamp(0, apart * (source - 1)) - pixel).abs()).clamp(min=0) / apart
