"""Decode image files and pairs of files into pictures that lie on each other."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageOps, UnidentifiedImageError

from nnunetv2_guidino.files import download_fault
from nnunetv2_guidino.tools.conversion.sources import SourceFile, SourcePair

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF")  # Pillow's other decoders start programs and are less tested
ORIENTATION = 0x0112  # EXIF tag
Exif = Literal["stored", "upright"]


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
    """Decode the whole picture; `deep` allows more than 8 bits of grey. Raises ValueError that names the file."""
    try:
        return _decode(file.read(), deep)
    except Exception as error:  # each of Pillow's decoders raises its own errors for a damaged file
        fault = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"{file}: {fault}") from error


def _decode(data: bytes, deep: bool) -> Picture:
    if fault := download_fault(data[:1024]) if data else "is empty":
        raise ValueError(fault)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"is no image of the kinds {', '.join(FORMATS)}, or it is damaged") from None
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


def read_pair(pair: SourcePair, exif: Exif | None = None) -> tuple[Image.Image, Image.Image, Exif | None]:
    """Read image and mask in one size, and return whether they are upright or as stored.

    They are upright, unless their EXIF orientations differ and only the stored pixels have equal sizes. Where both
    readings have equal sizes, `exif` decides; without it None is returned instead of a reading.

    Raises:
        ValueError: If a file cannot be read, or the sizes differ in both readings; with a line for each file.
    """
    pictures, problems = [], []
    for file in (pair.image, pair.mask):
        try:
            pictures.append(decode(file, deep=file is pair.mask))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    image, mask = pictures
    fitting: list[Exif] = ["upright"] if image.upright.size == mask.upright.size else []
    if image.orientation != mask.orientation and image.stored.size == mask.stored.size:
        fitting.append("stored")
    if not fitting:
        sizes = "image {}×{}, mask {}×{}".format(*image.upright.size, *mask.upright.size)
        raise ValueError(f"{pair.image}: image and mask differ in size ({sizes}; width × height, upright after EXIF)")
    chosen = fitting[0] if len(fitting) == 1 else exif
    return (image.stored, mask.stored, chosen) if chosen == "stored" else (image.upright, mask.upright, chosen)


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
