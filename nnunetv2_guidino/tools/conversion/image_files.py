"""Decode image files and pairs of files into pictures that lie on each other."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from nnunetv2_guidino.tools.conversion.sources import SourceFile, SourcePair

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF")  # Pillow's other decoders start programs and are less tested
ORIENTATION = 0x0112  # EXIF tag
Exif = Literal["stored", "upright"]


class UnclearOrientationError(ValueError):
    """Image and mask differ in their EXIF orientation, and their sizes match both as stored and upright."""


@dataclass(frozen=True)
class Picture:
    """A decoded file."""

    upright: Image.Image
    orientation: int  # EXIF orientation of the file; 1: none

    @property
    def stored(self) -> Image.Image:
        """The pixels in the file's own orientation."""
        picture = self.upright.copy()
        picture.getexif()[ORIENTATION] = {6: 8, 8: 6}.get(self.orientation, self.orientation)  # the inverse turn
        return ImageOps.exif_transpose(picture)


def decode(file: SourceFile, deep: bool = False) -> Picture:
    """Decode the whole picture; `deep` allows more than 8 bits of grey. Raises ValueError or OSError."""
    image = _open(file.read())
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # the other frames of an MPO are thumbnails
        raise ValueError("holds several pictures, expected one")
    # Pillow reads 16-bit colours as 8-bit colours; only the tiles show the depth in the file
    raw_mode = image.tile[0].args if image.tile else ""
    raw_mode = str(raw_mode[0] if isinstance(raw_mode, tuple) else raw_mode)
    is_deep_grey = image.mode.startswith(("I", "F"))
    if is_deep_grey and not deep:
        raise ValueError("has more than 8 bits per channel; window it to 8 bits as its meaning demands")
    if ";16" in raw_mode and image.format != "BMP" and not is_deep_grey:
        raise ValueError("has more than 8 bits per channel and is not plain grey; save it with 8 bits per channel")
    orientation = image.getexif().get(ORIENTATION, 1)  # before load(), which turns a TIFF
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return Picture(image, orientation if orientation in range(2, 9) else 1)


def _open(data: bytes) -> ImageFile.ImageFile:
    if not data:
        raise ValueError("is empty")
    if data.startswith(b"version https://git-lfs"):
        raise ValueError("is a Git LFS pointer; fetch the file with: git lfs pull")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        reason = "it is a web page" if data.lstrip()[:5].lower() in (b"<!doc", b"<html") else "or it is damaged"
        raise ValueError(f"is no image of the kinds {', '.join(FORMATS)}; {reason}") from None


def try_decode(file: SourceFile, deep: bool = False) -> Picture | str:
    """Return the picture, or one line on the file and its fault."""
    try:
        return decode(file, deep)
    except Exception as error:  # each of Pillow's decoders raises its own errors for a damaged file
        return f"{file}: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}"


def read_pair(pair: SourcePair, exif: Exif | None = None) -> tuple[Image.Image, Image.Image, bool]:
    """Read image and mask in one size, and return whether they are as stored instead of upright.

    They are upright, unless their EXIF orientations differ and only the stored pixels have equal sizes. Where both
    readings have equal sizes, `exif` decides.

    Raises:
        UnclearOrientationError: If both readings have equal sizes, and `exif` is None.
        ValueError: If a file cannot be read, or the sizes differ in both readings; with a line for each file.
    """
    image, mask = try_decode(pair.image), try_decode(pair.mask, deep=True)
    if isinstance(image, str) or isinstance(mask, str):
        raise ValueError("\n".join(problem for problem in (image, mask) if isinstance(problem, str)))
    upright_fits = image.upright.size == mask.upright.size
    stored_fits = image.orientation != mask.orientation and image.stored.size == mask.stored.size
    if not upright_fits and not stored_fits:
        sizes = "image {}×{}, mask {}×{}".format(*image.upright.size, *mask.upright.size)
        raise ValueError(f"{pair.image}: image and mask differ in size ({sizes}; width × height, upright after EXIF)")
    if upright_fits and stored_fits and exif is None:
        raise UnclearOrientationError
    if stored_fits and not (upright_fits and exif == "upright"):
        return image.stored, mask.stored, True
    return image.upright, mask.upright, False


def on_black(image: Image.Image) -> Image.Image:
    """Remove transparency: transparent pixels become black."""
    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA")).convert("RGB")


def is_grey(image: Image.Image) -> bool:
    """Return whether the three channels are equal everywhere."""
    if image.mode in ("1", "L"):
        return True
    red, green, blue = image.convert("RGB").split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def as_image(picture: Image.Image, mode: str) -> Image.Image:
    """Convert a picture to "L" or "RGB" with black for transparent pixels, and without metadata."""
    image = on_black(picture).convert(mode)
    image.info.clear()  # no colour profile, patient's data or camera's data may enter the data set
    return image
