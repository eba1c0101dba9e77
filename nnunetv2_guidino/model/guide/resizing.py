"""Resize images (B, C, H, W) and volumes (B, C, D, H, W) by multiplying each axis with a small matrix."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nnunetv2_guidino.model.guide.autocast import without_autocast


def area_average(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Resize so that each value of the result is the mean over its part of the area or volume, for any two sizes.

    Adaptive pooling gives another result where one size does not divide the other: it widens each part to whole pixels,
    so that the parts overlap.

    Shape:
        (B, C, *any), of a floating-point type -> (B, C, *size)
    """
    return _multiplied(tensor, size, _shares)


def interpolate(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate bilinearly or trilinearly, like torch.nn.functional.interpolate with align_corners=False.

    On a GPU, the backward pass of torch's function adds with atomic operations, which is slow and not reproducible.

    Shape:
        (B, C, *any), of a floating-point type -> (B, C, *size)
    """
    return _multiplied(tensor, size, _neighbours)


def _multiplied(tensor: Tensor, size: Sequence[int], weights: Callable[[int, int, torch.device], Tensor]) -> Tensor:
    """Multiply each axis that changes its length by a matrix of weights (target, source)."""
    # A compiled graph holds its own matrices and needs no cache.
    make = weights if torch.compiler.is_compiling() else functools.partial(_kept, weights)
    with without_autocast(tensor):
        for axis in reversed(range(2, tensor.ndim)):
            source, target = tensor.shape[axis], size[axis - 2]
            if source == target:
                continue
            matrix = make(source, target, tensor.device).to(tensor.dtype)
            if axis == tensor.ndim - 1:
                tensor = tensor @ matrix.T
            else:  # multiplied from the left, the result is contiguous, like the features that it gates later
                behind = tensor.shape[axis + 1 :]
                tensor = torch.unflatten(matrix @ tensor.flatten(axis + 1), -1, behind)
        return tensor


@functools.lru_cache(maxsize=256)
def _kept(
    weights: Callable[[int, int, torch.device], Tensor], source: int, target: int, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # a matrix made in inference mode could not be used in a later training
        return weights(source, target, device)


def _shares(source: int, target: int, device: torch.device) -> Tensor:
    """Return the fraction of each of `target` equal parts of an axis that lies in each of its `source` pixels.

    Shape:
        (target, source); each row sums to one
    """
    # Whole numbers are exact: the axis has length source · target, a part has length `source`, a pixel `target`.
    part = torch.arange(target, device=device)[:, None] * source
    pixel = torch.arange(source, device=device) * target
    overlap = torch.minimum(part + source, pixel + target) - torch.maximum(part, pixel)
    return overlap.clamp(min=0) / source


def _neighbours(source: int, target: int, device: torch.device) -> Tensor:
    """Return the weights of linear interpolation from `source` pixels to the centre of each of `target` pixels.

    Shape:
        (target, source); each row sums to one and has at most two entries that are not zero
    """
    # Whole numbers are exact: the axis has length 2 · source · target, and source pixels are 2 · target apart.
    apart = 2 * target
    # Centres are measured from the centre of the first source pixel; beyond the outer centres, the edge value holds.
    centre = (torch.arange(target, device=device)[:, None] * 2 + 1) * source - target
    pixel = torch.arange(source, device=device) * apart
    return (apart - (centre.clamp(0, apart * (source - 1)) - pixel).abs()).clamp(min=0) / apart
