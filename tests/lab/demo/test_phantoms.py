import numpy as np
import pytest

from nnunetv2_guidino.lab.demo import phantoms
from nnunetv2_guidino.lab.demo.phantoms import BACKGROUNDS, GRAINS, SIZE


@pytest.fixture(scope="module")
def pairs():
    return list(phantoms.phantoms("train", 12))


def test_same_arguments_give_the_same_pixels(pairs):
    for pair, again in zip(pairs, phantoms.phantoms("train", 12), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(pair, again, strict=True))


def test_seed_part_and_index_give_other_pixels(pairs):
    images = [image for image, _ in pairs]
    images += [image for image, _ in phantoms.phantoms("train", 2, seed=1)]
    images += [image for image, _ in phantoms.phantoms("heldout", 2)]
    assert len({image.tobytes() for image in images}) == len(images)


def test_masks_mark_some_of_the_image(pairs):
    for image, mask in pairs:
        assert (image.shape, image.dtype) == ((SIZE, SIZE, 3), np.uint8)
        assert (mask.shape, mask.dtype) == ((SIZE, SIZE), np.uint8)
        assert set(np.unique(mask)) == {0, 1}
        assert 0.01 < mask.mean() < 0.5


def test_lesions_have_a_grain(pairs):
    """The mask lies where the image was painted: there, neighbouring pixels differ more than elsewhere."""
    roughness = [np.abs(np.diff(image.astype(float), axis=0)).mean(2) for image, _ in pairs]
    inside = np.concatenate([r[mask[1:] == 1] for r, (_, mask) in zip(roughness, pairs, strict=True)])
    outside = np.concatenate([r[mask[1:] == 0] for r, (_, mask) in zip(roughness, pairs, strict=True)])
    assert inside.mean() > 1.2 * outside.mean()


@pytest.mark.parametrize("name", [*BACKGROUNDS, *GRAINS])
def test_train_and_heldout_crops_share_no_pixel(monkeypatch, name):
    """Photographs that carry their own column number show which columns a part's crops come from."""
    height, width, _ = phantoms.photograph(name).shape
    columns = np.broadcast_to(np.arange(width, dtype=float)[None, :, None], (height, width, 3))
    monkeypatch.setattr(phantoms, "photograph", lambda _: columns)
    rng = np.random.default_rng(0)
    crops = {part: np.stack([phantoms.crop(rng, name, part) for _ in range(50)]) for part in phantoms.PARTS}
    assert crops["train"].max() < crops["heldout"].min()
