"""Guide loss (equation 2), boundary hinge loss (equation 3), and both beside nnU-Net's own loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn

from nnunetv2_guidino.guide.resizing import area_average, interpolate
from nnunetv2_guidino.guide.tokenbook import gating_guide


class Annotation(NamedTuple):
    """What a target says about each pixel or voxel, whatever its form.

    Shape:
        masks (B, K, …) boolean, one for each foreground class or region; valid (B, 1, …) boolean, False where ignored
    """

    masks: Tensor
    valid: Tensor

    @property
    def foreground(self) -> Tensor:
        """(B, 1, …) boolean: any class, or the union of the regions."""
        return self.masks.any(1, keepdim=True)


def read_target(target: Tensor, label_manager: LabelManager) -> Annotation:
    """
    Shape:
        target (B, 1, …) of labels; with regions (B, K, …), and the ignore label's mask as one more channel behind them
    """
    if label_manager.has_regions:
        regions = len(label_manager.foreground_regions)
        masks, ignored = target[:, :regions] > 0, target[:, regions:] > 0
    else:
        masks = torch.cat([target == label for label in label_manager.foreground_labels], dim=1)
        ignored = target == label_manager.ignore_label if label_manager.has_ignore_label else target[:, :0] > 0
    valid = ~ignored.any(1, keepdim=True)
    return Annotation(masks & valid, valid)


def guide_loss(guides: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy between each guide and its mask's share of each token's valid area (equation 2).

    A token counts as much as is valid of it, so that this is the mean over all valid pixels. Computed in float32: on
    probabilities the loss is refused under CUDA's autocast.

    Shape:
        guides (B, G, …) in [0, 1] at the tokens' resolution, masks (B, G, …) and valid (B, 1, …) boolean at the
        image's -> scalar
    """
    with torch.autocast(guides.device.type, enabled=False):
        tokens = guides.shape[2:]
        weights = area_average(valid.float(), tokens)
        smallest = torch.finfo(weights.dtype).tiny
        share = area_average((masks & valid).float(), tokens) / weights.clamp(min=smallest)
        loss = weights * F.binary_cross_entropy(guides.float(), share.clamp(max=1), reduction="none")
        return _mean(loss.sum(), guides.shape[1] * weights.sum())


def boundary_band(masks: Tensor, valid: Tensor, in_plane: bool = False) -> Tensor:
    """Dilation minus erosion with a kernel of 3 along each axis: the pixels on both sides of each mask's edge.

    Ignored pixels are in no band, and no pixel is in one for having an ignored neighbour.

    Args:
        in_plane: The kernel is 1 along the first axis of volumes.

    Shape:
        masks (B, K, …) and valid (B, 1, …) boolean -> (B, K, …) boolean
    """

    def dilated(mask: Tensor) -> Tensor:
        pool, kernel = (F.max_pool2d, (3, 3)) if mask.ndim == 4 else (F.max_pool3d, (1 if in_plane else 3, 3, 3))
        return pool(mask.float(), kernel, stride=1, padding=[side // 2 for side in kernel]) > 0

    return dilated(masks & valid) & dilated(~masks & valid) & valid


def margins(logits: Tensor, channel: int, exclusive: bool) -> Tensor:
    """Log-odds of one class against all the others (softmax heads), or of one region (sigmoid heads).

    Shape:
        logits (n, channels) -> (n,)
    """
    if not exclusive:
        return logits[:, channel]
    others = torch.cat((logits[:, :channel], logits[:, channel + 1 :]), dim=1)
    return logits[:, channel] - others.logsumexp(1)


def boundary_loss(logits: Tensor, masks: Tensor, band: Tensor, channels: Sequence[int], exclusive: bool) -> Tensor:
    """Hinge loss max(0, 1 - y·z) with y = ±1 and the log-odds z, averaged over all masks' bands (equation 3).

    Zero, with zero gradient, where no mask has an edge.

    Args:
        channels: The logits' channel of each mask.
        exclusive: Softmax heads, otherwise sigmoid heads.

    Shape:
        logits (B, C, …), masks and band (B, K, …) boolean -> scalar
    """
    with torch.autocast(logits.device.type, enabled=False):
        channels_last = logits.movedim(1, -1)
        hinges = []
        for k, channel in enumerate(channels):
            # Only the few pixels of the band: the margins of all would take as much memory as the logits, per class.
            at_edge = band[:, k]
            z = margins(channels_last[at_edge].float(), channel, exclusive)
            hinges.append(torch.where(masks[:, k][at_edge], 1 - z, 1 + z).relu().sum())
        return _mean(torch.stack(hinges).sum(), band.sum())


def _mean(total: Tensor, count: Tensor) -> Tensor:
    """total / count, where count is the mean over all GPUs.

    DistributedDataParallel averages the gradients of the GPUs: so this gives what one GPU would give on the whole
    batch, though the counts of the GPUs differ. 0 where nothing is counted.
    """
    count = count.detach().clone().float()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(count)
        count /= dist.get_world_size()
    return total / torch.where(count > 0, count, 1)


class GuidedLoss(nn.Module):
    """nnU-Net's loss + λ_guide · guide loss + λ_boundary · boundary hinge loss.

    Ignored pixels count in no term.

    Args:
        segmentation_loss: As nnU-Net builds it, deep supervision and all.
        label_manager: nnU-Net's.
        lambda_guide, lambda_boundary: Weights; 0 switches a term off.
        in_plane: Volumes are anisotropic: an edge lies within a slice (see boundary_band).

    Shape:
        output: nnU-Net's outputs, finest first, and the guides (B, G, …) behind them: one for the foreground, or one
            for each foreground class or region.
        target: nnU-Net's targets, finest first (see read_target).
    """

    def __init__(
        self,
        segmentation_loss: nn.Module,
        label_manager: LabelManager,
        lambda_guide: float,
        lambda_boundary: float,
        in_plane: bool = False,
    ):
        super().__init__()
        self.segmentation_loss = segmentation_loss
        self.label_manager = label_manager
        self.lambda_guide = lambda_guide
        self.lambda_boundary = lambda_boundary
        self.in_plane = in_plane
        self.terms = ["seg"] + ["guide"] * bool(lambda_guide) + ["boundary"] * bool(lambda_boundary)
        self._last: dict[str, Tensor] = {}

    def forward(self, output: list[Tensor], target: list[Tensor]) -> Tensor:
        *segmentations, guides = output
        masks, valid = annotation = read_target(target[0], self.label_manager)

        terms = {"seg": self.segmentation_loss(segmentations, target)}
        loss = terms["seg"]
        if self.lambda_guide:
            guided = annotation.foreground if guides.shape[1] == 1 else masks
            terms["guide"] = guide_loss(guides, guided, valid)
            loss = loss + self.lambda_guide * terms["guide"]
        if self.lambda_boundary:
            regions = self.label_manager.has_regions
            # nnU-Net's heads: one for each region; one for each label, at its value.
            channels = range(masks.shape[1]) if regions else self.label_manager.foreground_labels
            band = boundary_band(masks, valid, self.in_plane)
            terms["boundary"] = boundary_loss(segmentations[0], masks, band, channels, exclusive=not regions)
            loss = loss + self.lambda_boundary * terms["boundary"]
        self._last = {f"{name}_loss": term.detach() for name, term in terms.items()}
        self._last |= guide_counts(gating_guide(guides.detach()), annotation)
        return loss

    def last_terms(self) -> dict[str, Any]:
        """The unweighted terms of the last call and the guide's true and false positives and negatives, as NumPy."""
        return {name: term.cpu().numpy() for name, term in self._last.items()}


def guide_counts(guide: Tensor, annotation: Annotation) -> dict[str, Tensor]:
    """True positives, false positives and false negatives of the guide at threshold 0.5, at the image's resolution.

    Shape:
        guide (B, 1, …) at the tokens' resolution -> scalars
    """
    truth = annotation.foreground
    prediction = (interpolate(guide.float(), truth.shape[2:]) > 0.5) & annotation.valid
    return {
        "guide_tp": (prediction & truth).sum(),
        "guide_fp": (prediction & ~truth).sum(),
        "guide_fn": (~prediction & truth).sum(),
    }
