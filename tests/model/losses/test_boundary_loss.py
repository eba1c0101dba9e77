import numpy as np
import pytest
import torch
from guided_batches import blobs, everywhere, masks_of
from scipy import ndimage
from torch.utils._python_dispatch import TorchDispatchMode

from nnunetv2_guidino.model.losses import boundary
from nnunetv2_guidino.model.losses.boundary import boundary_band, boundary_loss


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


def plain_loss(logits, masks, band, channels, exclusive) -> torch.Tensor:
    """Class by class, on the pixels of its band alone."""
    pixels, hinges = logits.movedim(1, -1), []
    for k, channel in enumerate(channels):
        at_edge = pixels[band[:, k]].double()
        z = at_edge[:, channel]
        if exclusive:
            z = z - torch.cat((at_edge[:, :channel], at_edge[:, channel + 1 :]), dim=1).logsumexp(1)
        hinges.append((1 - torch.where(masks[:, k][band[:, k]], z, -z)).relu())
    return torch.cat(hinges).mean()


@pytest.mark.parametrize("spread", [1, 10, 1000], ids=["unsure", "sure", "very sure"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("size", "heads", "channels", "exclusive"),
    [
        ((24, 32), 2, [1], True),
        ((24, 32), 5, [1, 3], True),
        ((24, 32), 2, [0, 1], False),
        ((6, 16, 12), 41, list(range(1, 41)), True),
    ],
)
def test_values_and_gradients_are_those_of_the_plain_loss(size, heads, channels, exclusive, dtype, spread, monkeypatch):
    monkeypatch.setattr(boundary, "LOGITS_AT_ONCE", 1000)  # the larger ones in several parts
    masks = masks_of(blobs(2, len(channels), *size), *range(1, len(channels) + 1))
    band = boundary_band(masks, everywhere(masks))
    generator = torch.Generator().manual_seed(0)
    logits = (spread * torch.randn(2, heads, *size, generator=generator)).to(dtype).requires_grad_()
    losses = [loss(logits, masks, band, channels, exclusive) for loss in (boundary_loss, plain_loss)]
    torch.testing.assert_close(losses[0].double(), losses[1], rtol=1e-5, atol=0)
    scale = 2.0**10  # GradScaler's: float16 ends near 6e-8
    ours, expected = (torch.autograd.grad(scale * loss, logits)[0].float() for loss in losses)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def test_of_many_classes_only_the_pixels_of_the_band_are_kept_for_the_backward_pass(monkeypatch):
    """With 117 classes, what the margins are made of would take as much memory as all logits together."""
    monkeypatch.setattr(boundary, "LOGITS_AT_ONCE", 1000)
    masks = masks_of(blobs(1, 20, 40, 40), *range(1, 21))
    band = boundary_band(masks, everywhere(masks))
    logits, kept = torch.randn(1, 21, 40, 40, requires_grad=True), {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        boundary_loss(logits, masks, band, range(1, 21), exclusive=True)
    pixels = int(band.any(1).sum())
    at_edge = 4 * pixels * logits.shape[1]
    assert sum(storage.nbytes() for storage in kept.values()) < 3 * at_edge  # with their places


class Made(TorchDispatchMode):
    """Names of the operations, and how many bytes of tensors they make."""

    def __init__(self):
        super().__init__()
        self.names, self.bytes = set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.names.add(func.overloadpacket.__name__)
        given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.bytes += tensor.nbytes
        return made


def test_the_backward_pass_writes_as_much_for_each_of_many_classes_as_of_few():
    """It wrote gradients for all classes once more for each class."""
    written = []
    for classes in (4, 32):
        masks = masks_of(blobs(1, classes, 32, 32), *range(1, classes + 1))
        logits = torch.randn(1, classes + 1, 32, 32, requires_grad=True)
        loss = boundary_loss(logits, masks, boundary_band(masks, everywhere(masks)), range(1, classes + 1), True)
        with Made() as made:
            loss.backward()
        written.append(made.bytes / logits.nbytes)
    assert written[1] < 2 * written[0]  # the band of more classes is larger


def test_a_band_takes_a_few_bytes_of_each_pixel():
    """Pooling keeps a float32 and an int64 index of each."""
    masks = masks_of(blobs(1, 2, 8, 32, 32), 1, 2)
    with Made() as made:
        boundary_band(masks, everywhere(masks))
    assert made.bytes < 16 * masks.nbytes
    assert not [name for name in made.names if "pool" in name]
