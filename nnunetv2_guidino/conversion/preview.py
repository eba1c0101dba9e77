"""A picture of some converted cases, for a first look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageChops, ImageFilter, ImageOps

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import whole_file

SIDE = 320  # pixels of a picture in the sheet


def draw_preview(target: Path, cases: Sequence[str], file: Path) -> None:
    """Three training cases, evenly spread over `cases`: the image, and below it the same with the mask's outline.

    Raises:
        GuidinoError: If `file` cannot be written.
    """
    chosen = [cases[len(cases) * i // 3] for i in range(min(3, len(cases)))]
    sheet = Image.new("RGB", (SIDE * len(chosen), SIDE * 2), "white")
    for column, case in enumerate(chosen):
        image = Image.open(target / "imagesTr" / f"{case}_0000.png").convert("RGB")
        mask = Image.open(target / "labelsTr" / f"{case}.png").point(lambda label: 255 if label else 0)
        image = ImageOps.contain(image, (SIDE, SIDE))
        mask = mask.resize(image.size, Image.Resampling.NEAREST)
        inside = mask.filter(ImageFilter.MinFilter(5))
        outlined = image.copy()
        outlined.paste("yellow", mask=ImageChops.subtract(mask, inside))
        sheet.paste(image, (column * SIDE, 0))
        sheet.paste(outlined, (column * SIDE, SIDE))
    try:
        with whole_file(file) as unfinished:
            sheet.save(unfinished)
    except GuidinoError as error:
        raise GuidinoError(f"{target} is complete, but not --preview: {error}") from error
