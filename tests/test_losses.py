import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from nnunetv2_guidino.losses import GuidedLoss, boundary_loss, class_margins, guide_counts, guide_loss


def blobs(batch: int, classes: int, size: int, seed: int = 0) -> np.ndarray:
    """Label maps with compact regions."""
    noise = np.random.default_rng(seed).normal(size=(batch, classes + 1, size, size))
    return ndimage.gaussian_filter(noise, (0, 0, 3, 3)).argmax(1)


def numpy_guide_loss(guide: np.ndarray, foreground: np.ndarray) -> float:
    """Equation (2) against the foreground averaged over each token's block."""
    b, _, h, w = guide.shape
    share = foreground.reshape(b, 1, h, foreground.shape[2] // h, w, foreground.shape[3] // w).mean((3, 5))
    return float(-(share * np.log(guide) + (1 - share) * np.log(1 - guide)).mean())


def numpy_boundary_loss(logits: np.ndarray, labels: np.ndarray, classes: list[int]) -> float:
    """Equation (3) with scipy's morphology."""
    total, count = 0.0, 0
    for image, label in zip(logits, labels, strict=True):
        for c in classes:
            mask = label == c
            kernel = np.ones((3, 3), bool)
            band = ndimage.binary_dilation(mask, kernel) & ~ndimage.binary_erosion(mask, kernel, border_value=1)
            others = np.log(np.exp(np.delete(image, c, axis=0)).sum(0))
            sign = np.where(mask, 1, -1)
            total += np.maximum(0, 1 - sign * (image[c] - others))[band].sum()
            count += band.sum()
    return total / count


def test_guide_loss_equals_equation_2():
    rng = np.random.default_rng(0)
    guide = rng.uniform(0.01, 0.99, (3, 1, 4, 5))
    foreground = blobs(3, 1, 40)[:, None, :32, :40] > 0
    ours = guide_loss(torch.from_numpy(guide), torch.from_numpy(foreground))
    assert ours.item() == pytest.approx(numpy_guide_loss(guide, foreground), rel=1e-5)


@pytest.mark.parametrize("classes", [1, 3])
def test_boundary_loss_equals_equation_3(classes):
    labels = blobs(2, classes, 32)
    logits = np.random.default_rng(1).normal(size=(2, classes + 1, 32, 32))
    foreground = list(range(1, classes + 1))
    masks = np.stack([labels == c for c in foreground], axis=1)
    ours = boundary_loss(class_margins(torch.from_numpy(logits), foreground), torch.from_numpy(masks))
    assert ours.item() == pytest.approx(numpy_boundary_loss(logits, labels, foreground), rel=1e-5)


def test_boundary_loss_without_an_edge_is_zero_with_zero_gradient():
    margins = torch.randn(1, 1, 8, 8, requires_grad=True)
    loss = boundary_loss(margins, torch.zeros(1, 1, 8, 8, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert margins.grad is not None
    assert margins.grad.abs().sum() == 0


def test_boundary_loss_vanishes_beyond_the_margin():
    masks = torch.from_numpy(blobs(1, 1, 16))[:, None] > 0
    assert boundary_loss(torch.where(masks, 1.01, -1.01), masks).item() == 0
    assert boundary_loss(torch.where(masks, -1.0, 1.0), masks).item() == pytest.approx(2)


class SumOfOutputs(nn.Module):
    """In place of nnU-Net's loss: shows which outputs reached it."""

    def forward(self, output, target):
        return sum(o.sum() for o in output)


def guided_batch() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    torch.manual_seed(0)
    labels = torch.from_numpy(blobs(2, 1, 32))[:, None].float()
    outputs = [torch.randn(2, 2, 32, 32), torch.randn(2, 2, 16, 16), torch.rand(2, 1, 4, 4)]
    return outputs, [labels, labels[:, :, ::2, ::2]]


@pytest.mark.parametrize(("lambda_guide", "lambda_boundary"), [(1.0, 0.1), (2.0, 0.0), (0.0, 0.5), (0.0, 0.0)])
def test_guided_loss_is_the_weighted_sum_of_its_terms(lambda_guide, lambda_boundary):
    outputs, targets = guided_batch()
    loss = GuidedLoss(SumOfOutputs(), [1], lambda_guide, lambda_boundary)
    value = loss(outputs, targets)
    terms = loss.last_terms()
    assert [f"{term}_loss" for term in loss.terms] == [name for name in terms if name.endswith("_loss")]
    assert ("guide_loss" in terms, "boundary_loss" in terms) == (bool(lambda_guide), bool(lambda_boundary))
    expected = terms["seg_loss"] + lambda_guide * terms.get("guide_loss", 0)
    expected = expected + lambda_boundary * terms.get("boundary_loss", 0)
    assert value.item() == pytest.approx(float(expected), rel=1e-5)
    assert terms["seg_loss"] == pytest.approx((outputs[0].sum() + outputs[1].sum()).item(), rel=1e-5)


def test_guide_counts_at_full_resolution():
    foreground = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    foreground[..., :4] = True
    guide = torch.tensor([[1.0, 0.0], [1.0, 0.0]])[None, None]
    counts = guide_counts(guide, foreground)
    assert [int(counts[f"guide_{name}"]) for name in ("tp", "fp", "fn")] == [32, 0, 0]
