"""Read masks from colours, transparency, palettes and 16 bits, and refuse contradictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pairs import convert, draw_image, draw_mask, save
from PIL import Image

from nnunetv2_guidino.tools.conversion.mask_levels import label_values, two_levels

MASK = draw_mask()
DRAWN = np.asarray(MASK) > 0


def coloured(background: tuple[int, int, int], *classes: tuple[np.ndarray, tuple[int, int, int]]) -> Image.Image:
    image = np.full((*DRAWN.shape, 3), background, np.uint8)
    for where, colour in classes:
        image[where] = colour
    return Image.fromarray(image)


def with_alpha(image: Image.Image, alpha: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    image.putalpha(alpha)
    return image


def indexed(colours: list[int]) -> Image.Image:
    image = Image.fromarray(DRAWN.astype(np.uint8))
    image.putpalette(colours)
    return image


LEFT = np.zeros_like(DRAWN)
LEFT[:, : DRAWN.shape[1] // 2] = True
RED, GREEN, WHITE, BLACK = (255, 0, 0), (0, 128, 0), (255, 255, 255), (0, 0, 0)

READ: dict[str, Callable[[], Image.Image]] = {
    "black, the mask in alpha": lambda: with_alpha(Image.new("RGB", MASK.size), MASK),
    "white, the mask in alpha": lambda: with_alpha(Image.new("RGB", MASK.size, "white"), MASK),
    "colours, all transparent": lambda: with_alpha(MASK, Image.new("L", MASK.size, 0)),
    "red, opaque, on transparent white": lambda: with_alpha(coloured(WHITE, (DRAWN, RED)), MASK),
    "palette of one colour": lambda: indexed([0, 0, 0, 0, 0, 0]),
    "blue on black": lambda: coloured(BLACK, (DRAWN, (0, 0, 255))),
    "16 bits, 0 and 65535": lambda: Image.fromarray(DRAWN.astype(np.uint16) * 65535),
    "16 bits, 0 and 1": lambda: Image.fromarray(DRAWN.astype(np.uint16)),
    "32 bits": lambda: Image.fromarray(DRAWN.astype(np.int32) * 1000),
    "floating point, whole": lambda: Image.fromarray(DRAWN.astype(np.float32)),
}


@pytest.mark.parametrize("what", READ)
def test_the_mask_is_found_where_it_is(what: str) -> None:
    levels = two_levels(READ[what]())
    np.testing.assert_array_equal(levels > levels.max() / 2, DRAWN)


REFUSED: dict[str, tuple[Callable[[], Image.Image], str]] = {
    "red and green": (lambda: coloured(BLACK, (DRAWN, RED), (DRAWN & LEFT, GREEN)), "several colours"),
    "of one brightness": (lambda: coloured(BLACK, (DRAWN, RED), (DRAWN & LEFT, (0, 130, 0))), "several colours"),
    "red on green": (lambda: coloured(GREEN, (DRAWN, RED)), "several colours"),
    "red on white": (lambda: coloured(WHITE, (DRAWN, RED)), "several colours"),
    "alpha says something else": (
        lambda: with_alpha(MASK, Image.fromarray(LEFT.astype(np.uint8) * 255)),
        "colours and",
    ),
    "fractions": (lambda: Image.fromarray(DRAWN.astype(np.float32) / 2), "fractions"),
    "negative": (lambda: Image.fromarray(-DRAWN.astype(np.int32)), "values from -1"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_contradictions_are_refused(what: str) -> None:
    draw, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        two_levels(draw())


def test_label_maps_of_16_bits() -> None:
    image = Image.fromarray(DRAWN.astype(np.uint16) * 1000)
    np.testing.assert_array_equal(label_values(image, coloured=False), DRAWN * 1000)


def test_16_bits_among_8_bits(tmp_path: Path, nnunet: Path) -> None:
    for name, mask in (("a", MASK), ("b", READ["16 bits, 0 and 65535"]())):
        save(draw_image(), tmp_path / "set/images" / f"{name}.png")
        save(mask, tmp_path / "set/masks" / f"{name}.png")
    assert convert("folder", tmp_path / "set") == 0
    for name in "ab":
        with Image.open(nnunet / f"Dataset500_set/labelsTr/{name}.png") as labels:
            np.testing.assert_array_equal(np.asarray(labels), DRAWN)


def test_coloured_classes_are_named_by_their_colours(
    tmp_path: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each refusal names the next step: from two-level masks to --labels, and from grey values to colours."""
    save(draw_image(), tmp_path / "set/images/a.png")
    save(coloured(WHITE, (DRAWN, RED), (DRAWN & LEFT, GREEN)), tmp_path / "set/masks/a.png")
    assert convert("folder", tmp_path / "set") == 1
    assert "--labels NAME=#ffffff,NAME=#008000,NAME=#ff0000" in capsys.readouterr().err
    assert convert("folder", tmp_path / "set", "--labels", "polyp=1,tool=2") == 1
    assert "--labels NAME=#ffffff,NAME=#008000,NAME=#ff0000" in capsys.readouterr().err
    assert convert("folder", tmp_path / "set", "--labels", "polyp=#ff0000,tool=#008000") == 1
    assert "holds the colours [#ffffff], which --labels does not name" in capsys.readouterr().err
    labels = "background=#ffffff,polyp=#ff0000,tool=#008000"
    assert convert("folder", tmp_path / "set", "--labels", labels) == 0
    assert "masks: label maps of polyp=#ff0000, tool=#008000" in capsys.readouterr().out
    with Image.open(nnunet / "Dataset500_set/labelsTr/a.png") as written:
        np.testing.assert_array_equal(np.asarray(written), np.select([DRAWN & LEFT, DRAWN], [2, 1]))


def test_16_bit_labels_by_value(tmp_path: Path, nnunet: Path) -> None:
    save(draw_image(), tmp_path / "set/images/a.png")
    save(Image.fromarray(DRAWN.astype(np.uint16) * 3000), tmp_path / "set/masks/a.png")
    assert convert("folder", tmp_path / "set", "--labels", "polyp=3000,tool=7") == 0
    with Image.open(nnunet / "Dataset500_set/labelsTr/a.png") as written:
        np.testing.assert_array_equal(np.asarray(written), DRAWN)
