"""Late fusion: the guide's evidence joins the segmentation's logits with a weight that training learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_guidino.guide.gates import guide_at
from nnunetv2_guidino.guide.tokenbook import START_OFFSET

SMALLEST_SHARE = 1e-6  # of a class that no training patch has shown yet


class LateFusion(nn.Module):
    """Adds w · (guide logit - prior logit) to each foreground logit of a segmentation.

    Network and guide are two observers of one pixel. The log-odds of independent observers add up, but both contain
    the prior odds of the foreground, which count once: so the guide gives its logit minus the prior's. The prior is the
    foreground's mean share of the training targets. Each foreground class or region has a weight w, which starts at 0
    and learns from the segmentation loss on training patches; no validation case takes part. The gradient reaches w and
    the network, not the guide, whose own losses train it.

    One guide for the foreground joins the logit of each class, and a guide for each class or region joins its own.

    Args:
        classes: Number of foreground classes or regions.
        guides: Number G of guides.

    Shape:
        segmentation (B, heads, …): a head for each region, or one for the background and one for each class;
        guide_logits (B, G, …) at the tokens' resolution -> as segmentation
    """

    foreground: Tensor
    area: Tensor

    def __init__(self, classes: int, guides: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes))
        # One token with the guide's initial share of foreground, so that there is a prior before the first batch.
        self.register_buffer("foreground", torch.full((guides,), START_OFFSET).sigmoid())
        self.register_buffer("area", torch.ones(()))
        self.register_load_state_dict_pre_hook(_from_one_weight)  # type: ignore[no-untyped-call]

    def forward(self, segmentation: Tensor, guide_logits: Tensor) -> Tensor:
        background, foreground = segmentation.tensor_split([segmentation.shape[1] - len(self.weight)], dim=1)
        per_channel = (-1, *[1] * (segmentation.ndim - 2))
        prior = (self.foreground / self.area).logit(SMALLEST_SHARE).reshape(per_channel)
        evidence = guide_at(guide_logits.detach() - prior, segmentation.shape[2:])
        return torch.cat([background, foreground + (self.weight.reshape(per_channel) * evidence).to(foreground)], dim=1)

    @torch.no_grad()
    def add_to_prior(self, share: Tensor, weight: Tensor) -> None:
        """Count a training batch into the foreground's share.

        Shape:
            share (B, G, …): the foreground's share of each token's valid area; weight (B, 1, …): the token's valid area
        """
        self.foreground += (share * weight).sum([0, *range(2, share.ndim)])
        self.area += weight.sum()


def can_fuse(heads: int, classes: int, guides: int) -> bool:
    """Whether the guides give evidence for each foreground head: one guide cannot tell several regions apart."""
    exclusive = heads == 1 + classes  # a background, and a class for each further head
    return exclusive or heads == guides == classes


def _from_one_weight(module: LateFusion, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Read a model of version 0.2.0.dev0: one weight for all classes, no prior (a share of ½ has the logit 0)."""
    weight = state.get(f"{prefix}weight")
    if weight is not None and weight.ndim == 0:
        state[f"{prefix}weight"] = weight.expand_as(module.weight)
        state[f"{prefix}foreground"] = torch.full_like(module.foreground, 0.5)
        state[f"{prefix}area"] = torch.ones_like(module.area)
