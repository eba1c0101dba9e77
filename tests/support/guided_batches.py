"""Targets in each of nnU-Net's forms, and outputs of a guided network beside them."""

from __future__ import annotations

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from scipy import ndimage
from torch import nn

from nnunetv2_guidino.model.losses.target import token_target

LABELS = LabelManager({"background": 0, "a": 1, "b": 2}, None)
WITH_IGNORE = LabelManager({"background": 0, "a": 1, "b": 2, "ignore": 3}, None)
WITH_GAP = LabelManager({"background": 0, "a": 1, "b": 3}, None)
REGIONS = LabelManager({"background": 0, "whole": [1, 2], "core": 2}, [1, 2])
REGIONS_WITH_IGNORE = LabelManager({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, [1, 2])


def blobs(batch: int, classes: int, *size: int, seed: int = 0) -> np.ndarray:
    """Label maps with compact regions."""
    noise = np.random.default_rng(seed).normal(size=(batch, classes + 1, *size))
    return ndimage.gaussian_filter(noise, (0, 0, *[3] * len(size))).argmax(1)


def masks_of(labels: np.ndarray, *classes: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([labels == c for c in classes], axis=1))


def everywhere(masks: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(masks[:, :1])


# the target in each of its forms: what nnU-Net's augmentation makes of labels 0, 1, 2 and 3 (ignored, or a class)


def as_target(labels: torch.Tensor, manager: LabelManager) -> torch.Tensor:
    if not manager.has_regions:
        return labels[:, None].float()
    members = [*manager.foreground_regions, *([manager.ignore_label] if manager.has_ignore_label else [])]
    return torch.stack([torch.isin(labels, torch.tensor(region)) for region in members], dim=1)


class SumOfOutputs(nn.Module):
    """In place of nnU-Net's loss: shows which outputs reached it."""

    def forward(self, output, target):
        return sum(o.sum() for o in output)


def guided_batch(manager: LabelManager, guides: int, *size: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    torch.manual_seed(0)
    target = as_target(torch.from_numpy(blobs(2, 3, *size)), manager)
    heads = manager.num_segmentation_heads
    half = (slice(None), slice(None), *[slice(None, None, 2)] * len(size))
    coarse = torch.randn(2, heads, *size)[half].clone()
    tokens = [*size[:-2], 4, 4]
    outputs = [torch.randn(2, heads, *size), coarse, torch.randn(2, guides, *tokens)]
    return [output.requires_grad_() for output in outputs], [target, target[half]]


def at_tokens(loss, logits, masks, valid):
    """A loss of guides against masks at the image's resolution."""
    return loss(logits, token_target(masks, valid, logits.shape[2:]))
