"""The guide's losses (equation 3 and Dice) and counts."""

import numpy as np
import pytest
import torch
from guided_batches import at_tokens, blobs, everywhere, masks_of

from nnunetv2_guidino.model.guide.tokenbook import AFFINE_EDGE, TokenBook, affine_logits
from nnunetv2_guidino.model.losses.guide_loss import SMOOTH, guide_counts, guide_dice_loss, guide_loss
from nnunetv2_guidino.model.losses.target import Annotation


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("tokens", [(4, 5), (6, 4, 5)])
def test_guide_loss_is_the_mean_over_valid_pixels_of_equation_3(tokens, ignored):
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
    ours = at_tokens(guide_loss, torch.from_numpy(guide).logit(), masks, torch.from_numpy(valid))
    assert ours.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("tokens", [(4, 5), (6, 4, 5)])
def test_guide_dice_loss_is_that_of_all_valid_pixels_of_the_batch(tokens, ignored):
    rng = np.random.default_rng(0)
    repeats = (8, 8) if len(tokens) == 2 else (1, 8, 8)
    guide = rng.uniform(0.01, 0.99, (3, 2, *tokens))
    masks = masks_of(blobs(3, 2, *[t * r for t, r in zip(tokens, repeats, strict=True)]), 1, 2)
    valid = rng.random((3, 1, *masks.shape[2:])) > 0.7 if ignored else np.ones((3, 1, *masks.shape[2:]), bool)
    at_pixels, truth = np.kron(guide, np.ones((1, 1, *repeats))) * valid, masks.numpy() & valid
    of_all = (0, *range(2, masks.ndim))
    smooth = SMOOTH * 64  # a token has so many pixels
    overlap, size = (at_pixels * truth).sum(of_all), (at_pixels + truth).sum(of_all)
    ours = at_tokens(guide_dice_loss, torch.from_numpy(guide).logit(), masks, torch.from_numpy(valid))
    assert ours.item() == pytest.approx(1 - ((2 * overlap + smooth) / (size + smooth)).mean(), rel=1e-5)


def test_guide_dice_loss_without_foreground_is_the_less_the_less_of_a_guide_there_is():
    nothing = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    logits = [torch.full((2, 1, 2, 2), value, requires_grad=True) for value in (-200.0, -5.0, 0.0, 200.0)]
    losses = [at_tokens(guide_dice_loss, of_guide, nothing, everywhere(nothing)) for of_guide in logits]
    assert losses == sorted(losses)
    assert losses[0] == 0
    for of_guide, loss in zip(logits, losses, strict=True):
        loss.backward()
        assert of_guide.grad.isfinite().all()


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


@pytest.mark.parametrize("logit", [5.0, 17.0, 40.0, 200.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wrong_token_loses_its_logit_and_learns_at_full_speed(logit, dtype):
    """A float32 sigmoid is 1 from 17 on."""
    logits = torch.tensor([logit, -logit], dtype=dtype).reshape(1, 1, 1, 2).requires_grad_()
    mask = torch.zeros(1, 1, 8, 16, dtype=torch.bool)
    mask[..., 8:] = True  # the other way round
    with torch.autocast("cpu", enabled=dtype != torch.float32):
        loss = at_tokens(guide_loss, logits, mask, everywhere(mask))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(np.logaddexp(0, logit), rel=1e-6)
    assert logits.grad.flatten().tolist() == pytest.approx([0.5, -0.5], rel=1e-2)


@pytest.mark.parametrize("readout", ["affine", "logistic"])
@pytest.mark.parametrize("direction", [-1, 1])
@pytest.mark.parametrize("angle", [0.0, 1e-5, 1e-3, 0.1])
def test_a_guide_at_its_end_stays_in_range(angle, direction, readout):
    """Rounding takes the mean of cosines out of [-1, 1], where a logarithm raises, or kills CUDA's process."""
    torch.manual_seed(0)
    book = TokenBook(64, 16, "cosine", readout)
    with torch.no_grad():
        book.prototypes.copy_(torch.randn(1, 1, 64).expand(1, 16, 64))
        book.projection.weight.copy_(torch.eye(64)[..., None, None])
        book.projection.bias.zero_()
    aside = torch.nn.functional.normalize(torch.randn(64), dim=0) * book.prototypes[0, 0].detach().norm() * angle
    token = direction * book.prototypes[0, 0].detach() + aside
    tokens = (token * torch.linspace(0.1, 10, 64)[:, None])[:, :, None, None]
    guides = book(tokens)
    assert guides.min() >= 0
    assert guides.max() <= 1
    mask = torch.full((64, 1, 8, 8), direction < 0)  # wrong
    loss = at_tokens(guide_loss, book.logits(tokens), mask, everywhere(mask))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in book.parameters() if p.grad is not None)
    assert angle < 0.1 or book.prototypes.grad.abs().max() > 1e-3


@pytest.mark.parametrize("similarity", [-1 - 1e-4, -1 - 1e-7, -1.0, -1 + 1e-7, -0.5, 0.0, 0.9999])
def test_an_affine_guide_learns_the_faster_the_wronger_it_is(similarity):
    s = torch.tensor([[[[similarity]]]], requires_grad=True)
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    at_tokens(guide_loss, affine_logits(s), mask, everywhere(mask)).backward()
    # d/ds of -log(½ + ½·s), as far as that is above the edge
    expected = -1 / max(1 + similarity, 2 * AFFINE_EDGE)
    assert s.grad.item() == pytest.approx(expected, rel=0.1)


def test_affine_loss_is_that_of_its_guide():
    """Where the two can be compared."""
    torch.manual_seed(0)
    book = TokenBook(6, 5, "cosine", "affine", guides=2)
    tokens = torch.randn(3, 6, 4, 5)
    masks = masks_of(blobs(3, 2, 32, 40), 1, 2)
    guides = book(tokens).repeat_interleave(8, 2).repeat_interleave(8, 3)
    expected = torch.nn.functional.binary_cross_entropy(guides, masks.float())
    ours = at_tokens(guide_loss, book.logits(tokens), masks, everywhere(masks))
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)
