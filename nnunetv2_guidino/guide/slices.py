"""Guiding a volume by some of its slices."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def slice_positions(depth: int, stride: int) -> list[int]:
    """Every stride-th of `depth` slices and the last, so that all others lie between two."""
    return [*range(0, depth - 1, stride), depth - 1]


def between_slices(computed: Tensor, positions: list[int], depth: int) -> Tensor:
    """Logits of guides that are linear along the first axis of volumes between the slices that were computed.

    Args:
        computed: Logits at the slices `positions`, ascending from 0 to depth - 1.

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
    return _mixture(computed[:, :, before], computed[:, :, after], share[:, None, None])


def _mixture(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """The logits of (1 - share) · σ(first) + share · σ(second), also where σ is 0 or 1 but for rounding."""
    of_first, of_second = (1 - share).log(), share.log()

    def log_mean(sign: int) -> Tensor:
        return torch.logaddexp(of_first + F.logsigmoid(sign * first), of_second + F.logsigmoid(sign * second))

    return log_mean(1) - log_mean(-1)
