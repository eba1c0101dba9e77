"""Guiding a volume by some of its slices."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def slice_positions(depth: int, stride: int) -> list[int]:
    """Every stride-th of `depth` slices and the last, so that all others lie between two."""
    return [*range(0, depth - 1, stride), depth - 1]


def take_slices(volume: Tensor, stride: int) -> Tensor:
    """The slices of a volume at slice_positions.

    Shape:
        (B, n, D, H, W) -> (B, n, len(slice_positions(D, stride)), H, W)
    """
    return torch.cat([volume[:, :, :-1:stride], volume[:, :, -1:]], dim=2)


def between_slices(computed: Tensor, positions: list[int], depth: int) -> Tensor:
    """Logits of guides that are linear along the first axis of volumes between the slices that were computed.

    Args:
        computed: Logits at the slices `positions`, as slice_positions returns them.

    Shape:
        (B, G, len(positions), h, w) -> (B, G, depth, h, w)
    """
    if len(positions) == depth:
        return computed
    stride = positions[1] - positions[0]
    # Computed where it is needed: positions that are copied to a GPU are waited for.
    wanted = torch.arange(depth, device=computed.device)
    before = (wanted // stride).clamp(max=len(positions) - 2)
    start = before * stride
    share = (wanted - start) / ((start + stride).clamp(max=depth - 1) - start)
    return _mixture(computed[:, :, before], computed[:, :, before + 1], share[:, None, None])


def _mixture(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """The logits of (1 - share) · σ(first) + share · σ(second), also where σ is 0 or 1 but for rounding."""
    of_first, of_second = (1 - share).log(), share.log()

    def log_mean(sign: int) -> Tensor:
        return torch.logaddexp(of_first + F.logsigmoid(sign * first), of_second + F.logsigmoid(sign * second))

    return log_mean(1) - log_mean(-1)
