"""Image files in any encoding, read as pictures, upright or as stored."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from nnunetv2_guidino.conversion.sources import SourceFile

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF")  # Pillow's other decoders start programs and are little tried
ORIENTATION = 0x0112  # EXIF's tag
# What EXIF's orientation asks for, and what undoes it
TURNED_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class Picture:
    """A decoded file: upright, and the EXIF orientation that made it so (1: none)."""

    upright: Image.Image
    orientation: int

    @property
    def stored(self) -> Image.Image:
        """The pixels as the file holds them."""
        back = TURNED_BACK.get(self.orientation)
        return self.upright if back is None else self.upright.transpose(back)


def decode(file: SourceFile, deep: bool = False) -> Picture:
    """The picture, complete; `deep` allows more than 8 bits of grey. Raises ValueError or OSError."""
    image = _open(file.read())
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # an MPO's others are its thumbnails
        raise ValueError("holds several pictures, expected one")
    # Pillow reads 16-bit colours as 8-bit ones: what the file holds is seen in its tiles only
    raw_mode = image.tile[0].args if image.tile else ""
    raw_mode = str(raw_mode[0] if isinstance(raw_mode, tuple) else raw_mode)
    is_deep_grey = image.mode.startswith(("I", "F"))
    if is_deep_grey and not deep:
        raise ValueError("has more than 8 bits per channel; window it to 8 bits first, as its meaning demands")
    if ";16" in raw_mode and image.format != "BMP" and not is_deep_grey:
        raise ValueError("has more than 8 bits per channel, and is not plain grey; save it with 8 bits per channel")
    orientation = image.getexif().get(ORIENTATION, 1)  # asked before loading, which turns a TIFF
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return Picture(image, orientation if orientation in TURNED_BACK else 1)


def _open(data: bytes) -> ImageFile.ImageFile:
    if not data:
        raise ValueError("is empty")
    if data.startswith(b"version https://git-lfs"):
        raise ValueError("is a Git LFS pointer; fetch what it points to (git lfs pull)")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        what = "a web page" if data.lstrip()[:5].lower() in (b"<!doc", b"<html") else "a damaged one"
        raise ValueError(f"is no image of the kinds {', '.join(FORMATS)}, or {what}") from None


def on_black(image: Image.Image) -> Image.Image:
    """The image without transparency: transparent pixels become black."""
    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA")).convert("RGB")


def is_grey(image: Image.Image) -> bool:
    """Whether the three channels are equal everywhere."""
    if image.mode in ("1", "L"):
        return True
    red, green, blue = image.convert("RGB").split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def read_image(file: SourceFile, mode: str) -> Image.Image:
    """The upright image as "L" or "RGB", 8 bits per channel. Raises ValueError or OSError."""
    return as_image(decode(file).upright, mode)


def as_image(picture: Image.Image, mode: str) -> Image.Image:
    """A decoded picture as what is written: "L" or "RGB", transparent pixels black, nothing but pixels."""
    image = on_black(picture).convert(mode)
    image.info.clear()  # no colour profile and no patient's or camera's data into the data set
    return image
