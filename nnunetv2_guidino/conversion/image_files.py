"""Image files in any encoding, read as 8-bit pictures."""

from __future__ import annotations

import io

from PIL import Image, ImageOps, UnidentifiedImageError

from nnunetv2_guidino.conversion.sources import SourceFile


def decode(file: SourceFile) -> Image.Image:
    """The picture, complete, upright and without transparency. Raises ValueError or OSError."""
    data = file.read()
    if not data:
        raise ValueError("is empty")
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise ValueError("is no image, or a damaged one") from None
    if image.format in ("TIFF", "GIF") and getattr(image, "n_frames", 1) > 1:
        raise ValueError("holds several pictures, expected one")
    # Pillow reads 16-bit colours as 8-bit ones: what the file holds is seen in its tiles only
    raw_mode = image.tile[0].args if image.tile else ""
    raw_mode = str(raw_mode[0] if isinstance(raw_mode, tuple) else raw_mode)
    if image.mode.startswith(("I", "F")) or (";16" in raw_mode and image.format != "BMP"):
        raise ValueError("has more than 8 bits per channel; window it to 8 bits first, as its meaning demands")
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image


def on_black(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA")).convert("RGB")


def is_grey(image: Image.Image) -> bool:
    if image.mode in ("1", "L"):
        return True
    red, green, blue = image.convert("RGB").split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def read_image(file: SourceFile, mode: str) -> Image.Image:
    """The image as "L" or "RGB", 8 bits per channel. Transparent pixels become black."""
    image = on_black(decode(file)).convert(mode)
    image.info.clear()  # no colour profile and no patient's or camera's data into the data set
    return image
