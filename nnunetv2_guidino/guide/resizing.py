"""Resizing of images (B, C, H, W) and volumes (B, C, D, H, W)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def area_average(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Each value of the result is the mean over its share of the area, or volume.

    Shape:
        (B, C, *any) -> (B, C, *size)
    """
    pool: Any = F.adaptive_avg_pool2d if tensor.ndim == 4 else F.adaptive_avg_pool3d
    averaged: Tensor = pool(tensor, tuple(size))
    return averaged


def interpolate(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, or trilinear.

    Shape:
        (B, C, *any) -> (B, C, *size)
    """
    return F.interpolate(tensor, size=tuple(size), mode="bilinear" if tensor.ndim == 4 else "trilinear")
