"""An image and its mask, read so that they lie on each other."""

from __future__ import annotations

from typing import Literal

from PIL import Image

from nnunetv2_guidino.conversion.dataset import SourcePair
from nnunetv2_guidino.conversion.image_files import Picture, decode

Exif = Literal["stored", "upright"]


class UnclearOrientationError(ValueError):
    """Image and mask differ in their EXIF orientation, and both ways to read them fit."""


class UnreadableError(ValueError):
    """Files of a pair that cannot be read; `problems` has a line for each."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        super().__init__("; ".join(problems))


def read_pair(pair: SourcePair, exif: Exif | None = None) -> tuple[Image.Image, Image.Image, bool]:
    """Both pictures, of one size, and whether they are as stored rather than upright.

    They are upright unless only one of them has an EXIF orientation (or another one) and only the stored pixels fit
    each other in size. Where both fit, `exif` says which it is.

    Raises:
        UnreadableError: If a file cannot be read.
        UnclearOrientationError: If both readings fit, and `exif` is None.
        ValueError: If the sizes fit neither way.
    """
    pictures, problems = [], []
    for file, deep in ((pair.image, False), (pair.mask, True)):
        try:
            pictures.append(decode(file, deep))
        except Exception as error:  # each of Pillow's decoders has its own way to fail on a damaged file
            problems.append(f"{file}: {str(error) or type(error).__name__}")
    if problems:
        raise UnreadableError(problems)
    image, mask = pictures
    as_stored = _fit_as_stored(image, mask, exif)
    return (image.stored, mask.stored, True) if as_stored else (image.upright, mask.upright, False)


def _fit_as_stored(image: Picture, mask: Picture, exif: Exif | None) -> bool:
    upright_fits = image.upright.size == mask.upright.size
    stored_fits = image.orientation != mask.orientation and image.stored.size == mask.stored.size
    if upright_fits and stored_fits:
        if exif is None:
            raise UnclearOrientationError
        return exif == "stored"
    if not upright_fits and not stored_fits:
        sizes = "image {}×{}, mask {}×{}".format(*image.upright.size, *mask.upright.size)
        raise ValueError(f"image and mask differ in size ({sizes}; width × height, upright after EXIF)")
    return stored_fits
