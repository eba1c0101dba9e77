"""Guide loss (equation 2), boundary hinge loss (equation 3), and both beside nnU-Net's own loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def guide_loss(guide: Tensor, foreground: Tensor) -> Tensor:
    """Binary cross-entropy between the guide and the foreground's share of each token's area (equation 2).

    Computed in float32: on probabilities it is refused under CUDA's autocast.

    Shape:
        guide (B, 1, h, w) in [0, 1], foreground (B, 1, H, W) of 0 and 1 -> scalar
    """
    with torch.autocast(guide.device.type, enabled=False):
        share = F.adaptive_avg_pool2d(foreground.float(), (guide.shape[2], guide.shape[3]))
        return F.binary_cross_entropy(guide.float(), share)


def class_margins(logits: Tensor, classes: Sequence[int]) -> Tensor:
    """Of a softmax head, the log-odds of each class against all the others.

    Shape:
        logits (B, n, H, W) -> (B, len(classes), H, W)
    """
    margins = []
    for c in classes:
        others = torch.cat((logits[:, :c], logits[:, c + 1 :]), dim=1)
        margins.append(logits[:, c] - others.logsumexp(1))
    return torch.stack(margins, dim=1)


def boundary_band(masks: Tensor) -> Tensor:
    """Dilation minus erosion with a 3×3 kernel: the pixels on both sides of each mask's edge.

    Shape:
        masks (B, K, H, W) of 0 and 1, floating point -> (B, K, H, W) of the same
    """
    dilated = F.max_pool2d(masks, kernel_size=3, stride=1, padding=1)
    eroded = -F.max_pool2d(-masks, kernel_size=3, stride=1, padding=1)
    return dilated - eroded


def boundary_loss(margins: Tensor, masks: Tensor) -> Tensor:
    """Hinge loss max(0, 1 - y·z) with y = ±1, averaged over the boundary band of all classes (equation 3).

    Zero, with zero gradient, where no mask has an edge.

    Shape:
        margins z (B, K, H, W), masks (B, K, H, W) of 0 and 1 -> scalar
    """
    with torch.autocast(margins.device.type, enabled=False):
        masks = masks.float()
        band = boundary_band(masks)
        hinge = F.relu(1 - (2 * masks - 1) * margins.float())
        return (hinge * band).sum() / band.sum().clamp(min=1)


class GuidedLoss(nn.Module):
    """nnU-Net's loss + λ_guide · guide loss + λ_boundary · boundary hinge loss.

    Args:
        segmentation_loss: As nnU-Net builds it, deep supervision and all.
        foreground_labels: Labels in the target that are foreground; they are also the output channels.
        lambda_guide, lambda_boundary: Weights; 0 switches a term off.

    Shape:
        output: nnU-Net's outputs, finest first, and the guide (B, 1, h, w) behind them.
        target: nnU-Net's targets, finest first, the first (B, 1, H, W) of labels.
    """

    def __init__(
        self,
        segmentation_loss: nn.Module,
        foreground_labels: Sequence[int],
        lambda_guide: float,
        lambda_boundary: float,
    ):
        super().__init__()
        self.segmentation_loss = segmentation_loss
        self.foreground_labels = list(foreground_labels)
        self.lambda_guide = lambda_guide
        self.lambda_boundary = lambda_boundary
        self.terms = ["seg"] + ["guide"] * bool(lambda_guide) + ["boundary"] * bool(lambda_boundary)
        self._last: dict[str, Tensor] = {}

    def forward(self, output: list[Tensor], target: list[Tensor]) -> Tensor:
        *segmentations, guide = output
        labels = target[0]
        masks = torch.cat([labels == label for label in self.foreground_labels], dim=1)
        foreground = masks.any(1, keepdim=True)

        terms = {"seg": self.segmentation_loss(segmentations, target)}
        loss = terms["seg"]
        if self.lambda_guide:
            terms["guide"] = guide_loss(guide, foreground)
            loss = loss + self.lambda_guide * terms["guide"]
        if self.lambda_boundary:
            terms["boundary"] = boundary_loss(class_margins(segmentations[0], self.foreground_labels), masks)
            loss = loss + self.lambda_boundary * terms["boundary"]
        self._last = {f"{name}_loss": term.detach() for name, term in terms.items()}
        self._last |= guide_counts(guide.detach(), foreground)
        return loss

    def last_terms(self) -> dict[str, Any]:
        """The unweighted terms of the last call and the guide's true and false positives and negatives, as NumPy."""
        return {name: term.cpu().numpy() for name, term in self._last.items()}


def guide_counts(guide: Tensor, foreground: Tensor) -> dict[str, Tensor]:
    """True positives, false positives and false negatives of the guide at threshold 0.5, at the image's resolution.

    Shape:
        guide (B, 1, h, w), foreground (B, 1, H, W) boolean -> scalars
    """
    prediction = F.interpolate(guide.float(), size=foreground.shape[2:], mode="bilinear") > 0.5
    return {
        "guide_tp": (prediction & foreground).sum(),
        "guide_fp": (prediction & ~foreground).sum(),
        "guide_fn": (~prediction & foreground).sum(),
    }
