import numpy as np
import pytest
import torch
from guided_batches import (
    LABELS,
    REGIONS,
    REGIONS_WITH_IGNORE,
    WITH_GAP,
    WITH_IGNORE,
    SumOfOutputs,
    as_target,
    blobs,
    everywhere,
    guided_batch,
    masks_of,
)
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from scipy import ndimage
from torch import nn

from nnunetv2_guidino.losses.guided import (
    Annotation,
    GuidedLoss,
    boundary_band,
    boundary_loss,
    guide_counts,
    guide_loss,
    read_target,
)


@pytest.mark.parametrize(
    ("manager", "labels", "masks", "valid"),
    [
        (LABELS, [0, 1, 2, 2], [[0, 1, 0, 0], [0, 0, 1, 1]], [1, 1, 1, 1]),
        (WITH_IGNORE, [0, 1, 2, 3], [[0, 1, 0, 0], [0, 0, 1, 0]], [1, 1, 1, 0]),
        (WITH_GAP, [0, 1, 3, 3], [[0, 1, 0, 0], [0, 0, 1, 1]], [1, 1, 1, 1]),
        (REGIONS, [0, 1, 2, 2], [[0, 1, 1, 1], [0, 0, 1, 1]], [1, 1, 1, 1]),
        (REGIONS_WITH_IGNORE, [0, 1, 2, 3], [[0, 1, 1, 0], [0, 0, 1, 0]], [1, 1, 1, 0]),
    ],
    ids=["labels", "ignore", "gap", "regions", "regions, ignore"],
)
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int16])
def test_target_says_the_same_in_each_form(manager, labels, masks, valid, dtype):
    target = as_target(torch.tensor(labels)[None, None], manager)
    annotation = read_target(target.to(dtype) if manager.has_regions else target, manager)
    assert annotation.masks[0, :, 0].int().tolist() == masks
    assert annotation.valid[0, 0, 0].int().tolist() == valid
    assert annotation.foreground[0, 0, 0].int().tolist() == np.max(masks, axis=0).tolist()


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("tokens", [(4, 5), (6, 4, 5)])
def test_guide_loss_is_the_mean_over_valid_pixels_of_equation_2(tokens, ignored):
    """With the guide of its token at every pixel; volumes have tokens in each slice."""
    rng = np.random.default_rng(0)
    repeats = (8, 8) if len(tokens) == 2 else (1, 8, 8)
    size = [t * r for t, r in zip(tokens, repeats, strict=True)]
    guide = rng.uniform(0.01, 0.99, (3, 2, *tokens))
    labels = blobs(3, 2, *size)
    valid = rng.random((3, 1, *size)) > 0.7 if ignored else np.ones((3, 1, *size), bool)
    valid[:, :, :, :8] &= not ignored  # tokens with nothing but ignored pixels
    masks = masks_of(labels, 1, 2)
    at_pixels = np.kron(guide, np.ones((1, 1, *repeats)))
    losses = -np.log(np.where(masks.numpy(), at_pixels, 1 - at_pixels))
    expected = losses[np.broadcast_to(valid, losses.shape)].mean()
    ours = guide_loss(torch.from_numpy(guide), masks, torch.from_numpy(valid))
    assert ours.item() == pytest.approx(expected, rel=1e-5)


def numpy_band(mask: np.ndarray, valid: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Valid pixels that have both kinds of valid pixels in reach."""
    inside, outside = (ndimage.binary_dilation(kind & valid, kernel) for kind in (mask, ~mask))
    return inside & outside & valid


@pytest.mark.parametrize(("size", "in_plane"), [((24, 32), False), ((10, 24, 20), False), ((10, 24, 20), True)])
@pytest.mark.parametrize("ignored", [False, True])
def test_boundary_band_is_dilation_minus_erosion(size, in_plane, ignored):
    labels = blobs(2, 2, *size)
    masks = masks_of(labels, 1, 2)
    valid = np.random.default_rng(0).random((2, 1, *size)) > 0.2 * ignored
    band = boundary_band(masks, torch.from_numpy(valid), in_plane).numpy()
    kernel = np.ones([1 if in_plane and axis == 0 else 3 for axis in range(len(size))], bool)
    for b, k in np.ndindex(2, 2):
        mask = masks[b, k].numpy()
        assert (band[b, k] == numpy_band(mask, valid[b, 0], kernel)).all()
        if not ignored:
            eroded = ndimage.binary_erosion(mask, kernel, border_value=1)
            assert (band[b, k] == (ndimage.binary_dilation(mask, kernel) & ~eroded)).all()


def test_an_ignored_region_has_no_boundary():
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    valid = torch.ones_like(mask)
    valid[..., 3:] = False
    assert not boundary_band(mask, valid).any()


@pytest.mark.parametrize("exclusive", [True, False], ids=["softmax", "sigmoid"])
@pytest.mark.parametrize("size", [(32, 24), (8, 16, 12)])
def test_boundary_loss_equals_equation_3(size, exclusive):
    labels = blobs(2, 3, *size)
    masks = masks_of(labels, 1, 3)
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 4, *size)))
    channels = [1, 3] if exclusive else [0, 1]
    hinges = []
    for b, k in np.ndindex(2, 2):
        mask = masks[b, k].numpy()
        c = channels[k]
        z = logits[b].numpy()[c]
        if exclusive:  # log of the probability over that of all others
            probability = logits[b].softmax(0)[c].numpy()
            z = np.log(probability / (1 - probability))
        hinge = np.maximum(0, 1 - np.where(mask, 1, -1) * z)
        hinges.append(hinge[numpy_band(mask, np.ones_like(mask), np.ones([3] * len(size)))])
    band = boundary_band(masks, everywhere(masks))
    ours = boundary_loss(logits, masks, band, channels, exclusive)
    assert ours.item() == pytest.approx(np.concatenate(hinges).mean(), rel=1e-5)


def test_boundary_loss_without_an_edge_is_zero_with_zero_gradient():
    logits = torch.randn(1, 2, 8, 8, requires_grad=True)
    masks = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    loss = boundary_loss(logits, masks, boundary_band(masks, ~masks), [1], exclusive=True)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_boundary_loss_vanishes_beyond_the_margin():
    masks = masks_of(blobs(1, 1, 16, 16), 1)
    band = boundary_band(masks, everywhere(masks))

    def loss(inside: float, outside: float) -> float:
        return boundary_loss(torch.where(masks, inside, outside), masks, band, [0], exclusive=False).item()

    assert loss(1.01, -1.01) == 0
    assert loss(-1.0, 1.0) == pytest.approx(2)


@pytest.mark.parametrize(("lambda_guide", "lambda_boundary"), [(1.0, 0.1), (2.0, 0.0), (0.0, 0.5), (0.0, 0.0)])
def test_guided_loss_is_the_weighted_sum_of_its_terms(lambda_guide, lambda_boundary):
    outputs, targets = guided_batch(WITH_IGNORE, 1, 32, 32)
    loss = GuidedLoss(SumOfOutputs(), WITH_IGNORE, lambda_guide, lambda_boundary)
    value = loss(outputs, targets)
    terms = loss.last_terms()
    assert [f"{term}_loss" for term in loss.terms] == [name for name in terms if name.endswith("_loss")]
    assert ("guide_loss" in terms, "boundary_loss" in terms) == (bool(lambda_guide), bool(lambda_boundary))
    expected = terms["seg_loss"] + lambda_guide * terms.get("guide_loss", 0)
    expected = expected + lambda_boundary * terms.get("boundary_loss", 0)
    assert value.item() == pytest.approx(float(expected), rel=1e-5)
    assert terms["seg_loss"] == pytest.approx((outputs[0].sum() + outputs[1].sum()).item(), rel=1e-5)


def nnunet_loss(manager: LabelManager) -> nn.Module:
    """As nnUNetTrainer._build_loss does."""
    dice = {"batch_dice": True, "smooth": 1e-5, "ddp": False}
    memory_efficient = {"dice_class": MemoryEfficientSoftDiceLoss}
    if manager.has_regions:
        loss: nn.Module = DC_and_BCE_loss({}, dice, use_ignore_label=manager.has_ignore_label, **memory_efficient)
    else:
        loss = DC_and_CE_loss({**dice, "do_bg": False}, {}, ignore_label=manager.ignore_label, **memory_efficient)
    return DeepSupervisionWrapper(loss, [2 / 3, 1 / 3])


@pytest.mark.parametrize("guides", [1, 2])
@pytest.mark.parametrize("size", [(16, 24), (6, 16, 24)])
@pytest.mark.parametrize("manager", [WITH_IGNORE, REGIONS_WITH_IGNORE], ids=["labels", "regions"])
def test_ignored_pixels_count_in_no_term(manager, size, guides):
    outputs, targets = guided_batch(manager, guides, *size)
    valid = [read_target(target, manager).valid for target in targets]
    assert all(v.any() and not v.all() for v in valid)
    loss = GuidedLoss(nnunet_loss(manager), manager, 1.0, 0.5)
    loss(outputs, targets).backward()
    for output, v in zip(outputs, valid, strict=False):
        assert output.grad.isfinite().all()
        assert output.grad.abs().amax(1, keepdim=True)[~v].max() == 0
        assert output.grad.abs().amax(1, keepdim=True)[v].max() > 0
    counts = loss.last_terms()
    assert counts["guide_tp"] + counts["guide_fn"] == read_target(targets[0], manager).foreground.sum()


@pytest.mark.parametrize("manager", [WITH_IGNORE, REGIONS_WITH_IGNORE], ids=["labels", "regions"])
def test_nothing_but_ignored_pixels_gives_a_finite_loss_without_gradient(manager):
    outputs, targets = guided_batch(manager, 2, 16, 24)
    nothing = [as_target(torch.full((2, *target.shape[2:]), 3), manager) for target in targets]
    loss = GuidedLoss(nnunet_loss(manager), manager, 1.0, 0.5)(outputs, nothing)
    loss.backward()
    assert loss.isfinite()
    for output in outputs:
        assert output.grad.abs().max() == 0


def test_one_guide_means_the_foreground_and_several_mean_the_classes():
    outputs, targets = guided_batch(REGIONS, 2, 16, 16)
    masks, valid = read_target(targets[0], REGIONS)
    loss = GuidedLoss(SumOfOutputs(), REGIONS, 1.0, 0.0)
    loss(outputs, targets)
    assert loss.last_terms()["guide_loss"] == pytest.approx(guide_loss(outputs[2], masks, valid).item())
    outputs[2] = outputs[2][:, :1]
    loss(outputs, targets)
    union = masks.any(1, keepdim=True)
    assert loss.last_terms()["guide_loss"] == pytest.approx(guide_loss(outputs[2], union, valid).item())


def test_guide_counts_at_full_resolution():
    foreground = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    foreground[..., :4] = True
    upper = torch.zeros_like(foreground)
    upper[..., :4, :] = True
    guide = torch.tensor([[1.0, 0.0], [1.0, 0.0]])[None, None]
    for truth, valid, expected in (
        (foreground, torch.ones_like(upper), [32, 0, 0]),
        (foreground & upper, upper, [16, 0, 0]),
        (~foreground, torch.ones_like(upper), [0, 32, 32]),
        (~foreground & upper, upper, [0, 16, 16]),
    ):
        counts = guide_counts(guide, Annotation(truth, valid))
        assert [int(counts[f"guide_{name}"]) for name in ("tp", "fp", "fn")] == expected
