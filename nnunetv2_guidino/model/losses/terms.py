"""Define the contract of a loss term and the helpers that terms share.

A term is a function of a Step that returns a scalar, or a class with instances that take a Step and return a scalar. It
has a file of its own, and its name, weight and label in lists.LOSS_TERMS. It has no parameters to train and ignores
pixels with the ignore label. Its value and its gradient are finite for every target, also for one without any pixel to
count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.distributed as dist
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor

from nnunetv2_guidino.model.losses.target import Annotation, TokenTarget, token_target


@dataclass(frozen=True)
class Step:
    """The outputs and the target of one step of training or validation, as a term gets them.

    Args:
        segmentations: The network's logits (B, heads, …), finest first. There is one head for each label, at the index
            of its value, or one for each region.
        guide_logits: Logits of the guides (B, G, …) at the tokens' resolution; G is 1 for one guide of the foreground,
            else the number of classes or regions.
        annotation: The target at the image's resolution.
        label_manager: nnU-Net's label manager.
        in_plane: True if volumes are anisotropic, so that edges are looked for within slices only.
    """

    segmentations: list[Tensor]
    guide_logits: Tensor
    annotation: Annotation
    label_manager: LabelManager
    in_plane: bool = False

    @cached_property
    def guide_target(self) -> TokenTarget:
        """Return the guides' target: the foreground for one guide, the classes or regions for several."""
        masks = self.annotation.foreground if self.guide_logits.shape[1] == 1 else self.annotation.masks
        return token_target(masks, self.annotation.valid, self.guide_logits.shape[2:])


def mean_over_gpus(total: Tensor, count: Tensor) -> Tensor:
    """Return total / count, where count is the mean over all GPUs; return 0 if all counts are 0.

    DistributedDataParallel averages the gradients of the GPUs. With this common count the average equals the gradient
    of the whole batch on one GPU, although the counts of the GPUs differ.

    Shape:
        scalars -> scalar
    """
    count = count.detach().clone().float()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(count)
        count /= dist.get_world_size()
    return total / torch.where(count > 0, count, 1)


def sum_over_gpus(total: Tensor) -> Tensor:
    """Return the sum over all GPUs.

    DistributedDataParallel's mean of the gradients equals the gradient of the whole batch on one GPU.

    Shape:
        any -> the same
    """
    if not (dist.is_available() and dist.is_initialized()):
        return total
    of_all = total.detach().clone()
    dist.all_reduce(of_all)
    # The second summand is zero. It carries the gradient, scaled by the number of GPUs that the mean divides by.
    return of_all + dist.get_world_size() * (total - total.detach())
