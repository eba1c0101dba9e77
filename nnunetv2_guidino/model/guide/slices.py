"""Guide a volume by some of its slices."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def slice_positions(depth: int, stride: int) -> list[int]:
    """Return the indices of every stride-th slice and of the last, so that every other slice lies between two."""
    return [*range(0, depth - 1, stride), depth - 1]


def take_slices(volume: Tensor, stride: int) -> Tensor:
    """Return the slices of a volume at slice_positions.

    Shape:
        (B, n, D, H, W) -> (B, n, len(slice_positions(D, stride)), H, W)
    """
    return torch.cat([volume[:, :, :-1:stride], volume[:, :, -1:]], dim=2)


def between_slices(computed: Tensor, positions: list[int], depth: int) -> Tensor:
    """Interpolate guides linearly between the computed slices, along the first axis of a volume, and return logits.

    Args:
        computed: Logits of the guides at the slices `positions`.
        positions: Indices of the computed slices, as slice_positions returns them.
        depth: Number of slices of the volume.

    Shape:
        (B, G, len(positions), h, w) -> (B, G, depth, h, w)
    """
    if len(positions) == depth:
        return computed
    stride = positions[1] - positions[0]
    # The indices are made on the device: the host would wait for a copy of `positions` to a GPU.
    wanted = torch.arange(depth, device=computed.device)
    before = (wanted // stride).clamp(max=len(positions) - 2)
    start = before * stride
    # The last interval may be shorter than the stride.
    share = (wanted - start) / ((start + stride).clamp(max=depth - 1) - start)
    return _mixture(computed[:, :, before], computed[:, :, before + 1], share[:, None, None])


def _mixture(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Return the logits of (1 - share) · σ(first) + share · σ(second).

    The result is finite also where rounding makes σ equal to 0 or 1.
    """
    # log p and log(1 - p) are computed apart, as logsigmoid of ±logit: the mixture itself would round to 0 or 1.
    of_first, of_second = (1 - share).log(), share.log()

    def log_mean(sign: int) -> Tensor:
        return torch.logaddexp(of_first + F.logsigmoid(sign * first), of_second + F.logsigmoid(sign * second))

    return log_mean(1) - log_mean(-1)
