"""Read masks of two levels in every encoding, and label maps."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pairs import draw_mask, stored
from PIL import Image, ImageDraw, ImageFilter

from nnunetv2_guidino.tools.conversion import masks
from nnunetv2_guidino.tools.conversion.image_files import decode
from nnunetv2_guidino.tools.conversion.sources import SourceFile


def read_mask(file: SourceFile, values: tuple[int, ...] | None) -> tuple[np.ndarray, int]:
    """Return the labels by `values`, or of two levels, and the range of the mask."""
    if values is None:
        levels = masks.TWO_LEVELS.levels(decode(file, deep=True).upright)
        found = masks.examine(levels)
        top = found.area or found.highest
        return (levels > top / 2).astype(np.uint8), top
    labels = masks.Values(values).labels(decode(file, deep=True).upright)
    return labels, int(labels.max())


def palette(mask: Image.Image, colours: list[int]) -> Image.Image:
    image = Image.fromarray((np.asarray(mask) > 0).astype(np.uint8))
    image.putpalette(colours)
    return image


def with_alpha(mask: Image.Image) -> Image.Image:
    image = Image.new("RGBA", mask.size, "white")
    image.putalpha(mask)
    return image


ENCODINGS: dict[str, tuple[Callable[[Image.Image], Image.Image], str]] = {
    "0/255": (lambda mask: mask, ".png"),
    "0/1": (lambda mask: mask.point(lambda level: level // 255), ".png"),
    "0/128": (lambda mask: mask.point(lambda level: level // 255 * 128), ".png"),
    "1 bit": (lambda mask: mask.convert("1"), ".png"),
    "RGB": (lambda mask: mask.convert("RGB"), ".png"),
    "grey and alpha": (lambda mask: mask.convert("LA"), ".png"),
    "in alpha": (with_alpha, ".png"),
    "black and white palette": (lambda mask: palette(mask, [0, 0, 0, 255, 255, 255]), ".png"),
    "PASCAL VOC palette": (lambda mask: palette(mask, [0, 0, 0, 128, 0, 0]), ".png"),
    "GIF": (lambda mask: mask, ".gif"),
    "BMP": (lambda mask: mask, ".bmp"),
    "TIFF": (lambda mask: mask, ".tif"),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_two_level_masks_are_read_exactly(encoding: str, tmp_path: Path) -> None:
    encode, ending = ENCODINGS[encoding]
    mask = draw_mask()
    labels, _ = read_mask(stored(encode(mask), tmp_path, ending), None)
    np.testing.assert_array_equal(labels, np.asarray(mask) // 255)
    assert labels.dtype == np.uint8


@pytest.mark.parametrize(("level", "label"), [(0, 0), (1, 1), (255, 1)])
def test_masks_of_one_level(level: int, label: int, tmp_path: Path) -> None:
    labels, mask_range = read_mask(stored(Image.new("L", (20, 10), level), tmp_path), None)
    assert np.unique(labels).tolist() == [label]
    assert mask_range == level


def random_mask(seed: int, colours: tuple[int, ...], size: tuple[int, int] = (300, 250)) -> Image.Image:
    """Draw one star-shaped polygon per colour, side by side."""
    random = np.random.default_rng(seed)
    mask = Image.new("L", size)
    for position, colour in enumerate(colours):
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        radii = random.uniform(0.5, 0.95, angles.size) * min(size[0] / len(colours), size[1]) / 2
        x = size[0] * (position + 0.5) / len(colours) + radii * np.cos(angles)
        y = size[1] / 2 + radii * np.sin(angles)
        ImageDraw.Draw(mask).polygon(list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour)
    return mask


def recompressed(mask: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    mask.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize("quality", [30, 60, 75, 95])
@pytest.mark.parametrize("colours", [(255,), (200, 200)])
def test_area_survives_recompression(quality: int, colours: tuple[int, ...], tmp_path: Path) -> None:
    """A random mask with noise, saved as JPEG, keeps its area to 0.5 %."""
    for seed in range(20):
        clean = random_mask(seed, colours)
        area = np.count_nonzero(clean)
        noise = np.random.default_rng(seed).normal(0, 4, np.asarray(clean).shape)
        noisy = Image.fromarray(np.clip(np.asarray(clean) + noise, 0, 255).astype(np.uint8))
        labels, _ = read_mask(stored(recompressed(noisy, quality), tmp_path), None)
        assert abs(int(labels.sum()) - area) < 0.005 * area, f"seed {seed}"


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_soft_and_recompressed_edges_are_no_third_plateau(radius: int, tmp_path: Path) -> None:
    for seed in range(10):
        soft = random_mask(seed, (255, 255)).filter(ImageFilter.GaussianBlur(radius)).resize((352, 352))
        read_mask(stored(recompressed(soft, 40), tmp_path), None)


@pytest.mark.parametrize("quality", [None, 30, 75, 95])
@pytest.mark.parametrize("colours", [(128, 255), (64, 255), (200, 255), (85, 170, 255), (60, 120)])
def test_third_plateau_is_refused(colours: tuple[int, ...], quality: int | None, tmp_path: Path) -> None:
    mask = random_mask(0, colours)
    file = stored(mask if quality is None else recompressed(mask, quality), tmp_path)
    with pytest.raises(ValueError, match="no two-level mask"):
        read_mask(file, None)


@pytest.mark.parametrize("colours", [(1, 2), (1, 2, 3), (1, 255), (254, 255)])
def test_label_maps_are_no_two_level_masks(colours: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no two-level mask"):
        read_mask(stored(random_mask(0, colours), tmp_path), None)


def test_red_and_green_are_two_classes(tmp_path: Path) -> None:
    red, green = (np.asarray(random_mask(0, colours)) for colours in ((255, 0), (0, 255)))
    mask = Image.fromarray(np.dstack([red, green, np.zeros_like(red)]))
    with pytest.raises(ValueError, match="no two-level mask"):
        read_mask(stored(recompressed(mask, 90), tmp_path, ".png"), None)


def test_values_become_consecutive_labels(tmp_path: Path) -> None:
    mask = random_mask(0, (50, 200))
    expected = np.select([np.asarray(mask) == 50, np.asarray(mask) == 200], [2, 1])
    for file in (stored(mask, tmp_path), stored(mask.convert("RGB"), tmp_path, ".bmp")):
        np.testing.assert_array_equal(read_mask(file, (200, 50))[0], expected)
    with pytest.raises(ValueError, match=r"values \[200\]"):
        read_mask(stored(mask, tmp_path), (50,))


def test_palette_label_map_is_read_by_index(tmp_path: Path) -> None:
    mask = draw_mask()
    labels, _ = read_mask(stored(palette(mask, [0, 0, 0, 128, 0, 0]), tmp_path), (1,))
    np.testing.assert_array_equal(labels, np.asarray(mask) // 255)
