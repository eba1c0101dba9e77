"""Lesion-like phantoms, painted on the photographs that scikit-image's wheel ships.

A lesion differs from its surroundings by a faint change of colour and by its grain. Its look-alikes have the same
shapes and colours without the grain, and highlights and hairs lie over both. So colour alone does not find a lesion,
and a network that must learn texture in a hundred steps leaves room for a guide.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from nnunetv2_guidino.errors import GuidinoError

SIZE = 128
PARTS = {"train": (0.0, 0.68), "heldout": (0.68, 1.0)}  # shares of each photograph's columns: no pixel is in both parts
CROP = (96, 140)  # pixels of a photograph, at most the narrowest part's width (0.32 * 480)
BACKGROUNDS = ("retina", "immunohistochemistry", "skin")
GRAINS = ("gravel", "grass")


@cache
def photograph(name: str) -> np.ndarray:
    """Read a photograph (H, W, 3) in [0, 1], 480 to 512 pixels a side; `skin` is the moon's surface, tinted."""
    try:
        from skimage import data
    except ImportError as error:
        raise GuidinoError('The demo needs scikit-image: pip install "nnunetv2-guidino[demo]"') from error
    if name == "retina":  # the square inside the round field of view, halved
        square = data.retina()[225:1185, 225:1185] / 255
        return square.reshape(480, 2, 480, 2, 3).mean((1, 3))
    if name == "skin":
        relief = (data.moon()[..., None] / 255 - 0.44) * 0.5
        return np.clip(np.array([0.80, 0.60, 0.50]) + relief, 0, 1)
    image = getattr(data, name)() / 255
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def crop(rng: np.random.Generator, name: str, part: str) -> np.ndarray:
    """Return a random square of the photograph's part, turned and mirrored, as (SIZE, SIZE, 3)."""
    from skimage.transform import resize

    picture = photograph(name)
    first, last = (round(fraction * picture.shape[1]) for fraction in PARTS[part])
    side = int(rng.integers(*CROP))
    row, column = rng.integers(0, picture.shape[0] - side), rng.integers(first, last - side)
    square = picture[row : row + side, column : column + side]
    square = np.rot90(square, int(rng.integers(4)))[:: rng.choice([-1, 1])]
    return resize(square, (SIZE, SIZE), order=1, anti_aliasing=False)


def blob(rng: np.random.Generator) -> np.ndarray:
    """Return a star-shaped region with a wavy outline, as a (SIZE, SIZE) mask of bool."""
    from skimage.draw import polygon2mask

    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    waves = [rng.normal(0, 0.28 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 9)]
    radius = rng.uniform(0.1, 0.22) * SIZE * np.clip(1 + np.sum(waves, axis=0), 0.4, 1.8)
    centre = rng.uniform(0.2, 0.8, 2) * SIZE
    return polygon2mask((SIZE, SIZE), centre + radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1))


def stroke(rng: np.random.Generator) -> np.ndarray:
    """Return a hair, a thin quadratic Bézier curve across the image, as a (SIZE, SIZE) mask of bool."""
    start, bend, end = rng.uniform(-0.1, 1.1, (3, 2)) * SIZE
    t = np.linspace(0, 1, 4 * SIZE)[:, None]
    points = np.rint((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end).astype(int)
    points = points[((points >= 0) & (points < SIZE)).all(axis=1)]
    mask = np.zeros((SIZE, SIZE), bool)
    mask[points[:, 0], points[:, 1]] = True
    return mask


def phantom(rng: np.random.Generator, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Paint an image (SIZE, SIZE, 3) of uint8 and its mask (SIZE, SIZE) of uint8 with 0 and 1."""
    from skimage.filters import gaussian

    image = crop(rng, rng.choice(BACKGROUNDS), part)
    mask = np.zeros((SIZE, SIZE), bool)
    tint = rng.normal(0, 0.03, 3) - rng.uniform(0.02, 0.14)  # shared by the lesion and its look-alikes
    grain = np.pad(crop(rng, rng.choice(GRAINS), part)[::2, ::2], ((0, SIZE // 2), (0, SIZE // 2), (0, 0)), "symmetric")
    grain = (grain - gaussian(grain, 6, channel_axis=2)) * rng.uniform(0.15, 0.4)
    kinds = [True] * rng.integers(1, 3) + [False] * rng.integers(1, 3)
    for is_lesion in rng.permutation(kinds):
        region = blob(rng) & ~mask
        weight = gaussian(region.astype(float), rng.uniform(1, 2.5))[..., None]
        smooth = gaussian(image, 1.5, channel_axis=2)
        image = image + weight * (0.6 * (smooth - image) + tint + (grain if is_lesion else 0))
        mask = mask | region if is_lesion else mask
    for _ in range(rng.integers(0, 4)):
        image = image - rng.uniform(0.1, 0.4) * gaussian(stroke(rng).astype(float), 0.7)[..., None]
    for _ in range(rng.integers(0, 4)):
        spot = np.zeros((SIZE, SIZE))
        spot[tuple(rng.integers(0, SIZE, 2))] = 1
        spot = gaussian(spot, rng.uniform(1, 3))
        image = image + rng.uniform(0.2, 0.6) * (spot / spot.max())[..., None]
    slope = rng.normal(0, 0.15, 2)
    rows, columns = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    image = image * (1 + slope[0] * rows + slope[1] * columns)[..., None]
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), mask.astype(np.uint8)


def phantoms(part: str, count: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield `count` images and masks of the part "train" or "heldout"; the same arguments give the same pixels."""
    for index in range(count):
        yield phantom(np.random.default_rng([seed, list(PARTS).index(part), index]), part)
