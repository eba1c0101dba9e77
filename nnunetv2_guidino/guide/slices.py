"""Guiding a volume by some of its slices."""

from __future__ import annotations

import torch
from torch import Tensor


def slice_positions(depth: int, stride: int) -> list[int]:
    """Every stride-th of `depth` slices and the last, so that all others lie between two."""
    return [*range(0, depth - 1, stride), depth - 1]


def between_slices(computed: Tensor, positions: list[int], depth: int) -> Tensor:
    """Linear interpolation along the first axis of volumes.

    Args:
        computed: At the slices `positions`, ascending from 0 to depth - 1.

    Shape:
        (B, G, len(positions), h, w) -> (B, G, depth, h, w)
    """
    if len(positions) == depth:
        return computed
    wanted = torch.arange(depth, device=computed.device)
    known = torch.tensor(positions, device=computed.device)
    after = torch.searchsorted(known, wanted).clamp(min=1)
    before = after - 1
    share = (wanted - known[before]) / (known[after] - known[before])
    return torch.lerp(computed[:, :, before], computed[:, :, after], share[:, None, None].to(computed.dtype))
