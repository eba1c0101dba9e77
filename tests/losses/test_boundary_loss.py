import numpy as np
import pytest
import torch
from guided_batches import blobs, everywhere, masks_of
from scipy import ndimage

from nnunetv2_guidino.losses.boundary import boundary_band, boundary_loss


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
def test_boundary_loss_equals_its_definition(size, exclusive):
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
