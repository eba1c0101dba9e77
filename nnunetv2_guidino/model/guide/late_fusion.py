"""Late fusion: the guide's evidence joins the segmentation's logits, weighed as training patches teach it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_guidino.model.guide.gates import guide_at


class LateFusion(nn.Module):
    """Predicts logit + w · guide logit + b for each foreground head of a segmentation.

    Network and guide are two observers of one pixel. The log-odds of independent observers add up, but both contain
    the prior odds of the foreground, which must count once: b learns to take the second prior off. w and b of each
    foreground class or region start at 0 and learn from the segmentation loss of the sum on training patches; no
    validation case takes part. The loss of the sum reaches neither the network nor the guide, which are trained as
    without late fusion.

    One guide for the foreground joins the logit of each class, and a guide for each class or region joins its own.

    Args:
        classes: Number of foreground classes or regions.

    Shape:
        segmentation (B, heads, …): a head for each region, or one for the background and one for each class;
        guide_logits (B, G, …) at the tokens' resolution -> as segmentation
    """

    def __init__(self, classes: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.register_load_state_dict_pre_hook(_from_one_weight)  # type: ignore[no-untyped-call]

    def forward(self, segmentation: Tensor, guide_logits: Tensor) -> Tensor:
        background, foreground = segmentation.detach().tensor_split([segmentation.shape[1] - len(self.weight)], dim=1)
        weight, bias = (values.reshape(-1, *[1] * (segmentation.ndim - 2)) for values in (self.weight, self.bias))
        evidence = weight * guide_at(guide_logits.detach(), segmentation.shape[2:]) + bias
        return torch.cat([background, foreground + evidence.to(foreground)], dim=1)


def can_fuse(heads: int, classes: int, guides: int) -> bool:
    """Whether the guides give evidence for each foreground head: one guide cannot tell several regions apart."""
    exclusive = heads == 1 + classes  # a background, and a class for each further head
    return exclusive or heads == guides == classes


def _from_one_weight(module: LateFusion, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Read a model of version 0.2.0.dev0, which had one weight for all classes and no bias."""
    weight = state.get(f"{prefix}weight")
    if weight is not None and weight.ndim == 0:
        state[f"{prefix}weight"] = weight.expand_as(module.weight)
        state[f"{prefix}bias"] = torch.zeros_like(module.bias)
