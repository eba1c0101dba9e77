"""Late fusion: what the guide says is added to the segmentation, as far as that helped in validation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_guidino.guide.gates import guide_at

WEIGHTS = (0.0, 0.5, 1.0)  # among which a training chooses


class LateFusion(nn.Module):
    """Adds the guides' logits, times a weight, to the foreground's of a segmentation.

    Network and guide err in different places: with weight 1 their log-odds add up, as those of independent observers
    do. The guide is coarse, so that on small structures the sum may be worse. The weight is 0 until a training chooses
    another at the end of an epoch (see training.logging), and lies in the checkpoint, so that each fold has its own.

    A guide for each class or region is added to its own logit. One guide for the foreground is added to each class's,
    which are exclusive; of several regions it says too little, and nothing is added.

    Args:
        classes: Number of foreground classes or regions.

    Shape:
        segmentation (B, heads, …): a head for each region, or one for the background and one for each class;
        guide_logits (B, G, …) at the tokens' resolution -> as segmentation
    """

    weight: Tensor

    def __init__(self, classes: int):
        super().__init__()
        self.classes = classes
        self.register_buffer("weight", torch.zeros(()))
        self.register_load_state_dict_pre_hook(_without_weight)  # type: ignore[no-untyped-call]

    def forward(self, segmentation: Tensor, guide_logits: Tensor) -> Tensor:
        return fused(segmentation, guide_logits, self.weight, self.classes)


def _without_weight(module: LateFusion, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Checkpoints of version 0.1.0 have none."""
    state.setdefault(prefix + "weight", torch.zeros(()))


def can_fuse(heads: int, guides: int, classes: int) -> bool:
    """Whether the guides say something of each foreground head by itself."""
    exclusive = heads == 1 + classes  # a background, and a class for each further head
    return exclusive or heads == guides == classes


def fused(segmentation: Tensor, guide_logits: Tensor, weight: Tensor | float, classes: int) -> Tensor:
    """segmentation + weight · guide_logits in the foreground's heads; shapes as LateFusion has them."""
    heads = segmentation.shape[1]
    if not can_fuse(heads, guide_logits.shape[1], classes):
        return segmentation
    evidence = weight * guide_at(guide_logits, segmentation.shape[2:])
    background, foreground = segmentation.tensor_split([heads - classes], dim=1)
    return torch.cat([background, foreground + evidence.to(segmentation.dtype)], dim=1)
