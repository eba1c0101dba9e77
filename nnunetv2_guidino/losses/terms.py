"""The contract of a loss term, and what terms share.

A term is a function of a Step that returns a scalar, or a class whose instance is called with one, in a file of its
own, with its name, weight and label in lists.LOSS_TERMS. It has no parameters to train, counts no ignored pixel, and is
finite with a finite gradient whatever the target, also where there is nothing to count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.distributed as dist
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor

from nnunetv2_guidino.losses.target import Annotation, TokenTarget, token_target


@dataclass(frozen=True)
class Step:
    """What a term sees of one step of training or validation.

    Args:
        segmentations: The network's logits (B, heads, …), finest first: one head for each label at its value, or one
            for each region.
        guide_logits: (B, G, …) at the tokens' resolution, whose σ is the guides: one for the foreground, or one for
            each class or region.
        annotation: What the target says, at the image's resolution.
        label_manager: nnU-Net's.
        in_plane: Volumes are anisotropic, so that an edge lies within a slice.
    """

    segmentations: list[Tensor]
    guide_logits: Tensor
    annotation: Annotation
    label_manager: LabelManager
    in_plane: bool = False

    @cached_property
    def guide_target(self) -> TokenTarget:
        """What the guides are to say: one means the foreground, several mean the classes or regions."""
        masks = self.annotation.foreground if self.guide_logits.shape[1] == 1 else self.annotation.masks
        return token_target(masks, self.annotation.valid, self.guide_logits.shape[2:])


def mean_over_gpus(total: Tensor, count: Tensor) -> Tensor:
    """total / count, where count is the mean over all GPUs.

    DistributedDataParallel averages the gradients of the GPUs: so this gives what one GPU would give on the whole
    batch, though the counts of the GPUs differ. 0 where nothing is counted.
    """
    count = count.detach().clone().float()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(count)
        count /= dist.get_world_size()
    return total / torch.where(count > 0, count, 1)


def sum_over_gpus(total: Tensor) -> Tensor:
    """The sum over all GPUs, with a gradient such that DistributedDataParallel's mean is that of the whole batch."""
    if not (dist.is_available() and dist.is_initialized()):
        return total
    of_all = total.detach().clone()
    dist.all_reduce(of_all)
    return of_all + dist.get_world_size() * (total - total.detach())
