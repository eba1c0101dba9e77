"""Image files of the formats that nnU-Net reads: whether they are whole, and how many pixels they hold.

ITK, which nnU-Net reads most volumes with, fills what is missing of a cut .nii.gz or .gipl with whatever is in memory
and says nothing. So the bytes are counted here against the header's shape, and compressed ones are read to their end,
where their check sum is.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import BinaryIO, Literal

import tifffile
from PIL import Image

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.volume_headers import CHUNK, HEADERS, DamagedError, Header, inflated

PNG = b"\x89PNG\r\n\x1a\n"
# What .png, .bmp and .tif files may be. Others (EPS starts Ghostscript) are opened by no reader.
RASTER_FORMATS = {
    "PNG": (PNG,),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "JPEG": (b"\xff\xd8\xff",),
}
RASTER_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")


def check_whole(file: Path) -> None:
    """Refuse an image file that is cut short, damaged or of another format than its name says.

    NIfTI, MetaImage, NRRD and GIPL: all bytes that the header asks for are there, and compressed ones fit their check
    sum. PNG: all chunks fit theirs. TIFF: all pages are there. BMP and JPEG are not looked into, since their readers
    themselves refuse what is cut.

    Raises:
        GuidinoError: If the file is not there, is no regular file, cannot be read, or is not whole.
    """
    with _named(file):
        if Path(file).suffix in RASTER_ENDINGS:
            _check_raster(file)
        else:
            _check_volume(file)


def stored_pixels(file: Path) -> int:
    """How many values the image holds, from its header alone.

    Raises:
        GuidinoError: As `check_whole` does, for a header that cannot be read.
    """
    with _named(file):
        return _raster_pixels(file) if Path(file).suffix in RASTER_ENDINGS else prod(_header(file).shape)


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Put the file's name before whatever goes wrong with it."""
    try:
        yield
    except GuidinoError:
        raise
    except FileNotFoundError as error:
        raise GuidinoError(f"{file} does not exist") from error
    except EOFError as error:
        raise GuidinoError(f"{file} cannot be read: it is cut short; copy or write it again") from error
    except KeyError as error:
        raise GuidinoError(f"{file} cannot be read: its header lacks {error}") from error
    except Exception as error:  # nibabel, tifffile and Pillow have their own
        what = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise GuidinoError(f"{file} cannot be read: {what}") from error


def _open(file: Path) -> BinaryIO:
    """The file for reading; never a device or a pipe, which may have no end."""
    if Path(file).exists() and not Path(file).is_file():
        raise DamagedError("it is no regular file")
    return Path(file).open("rb")


def _check_volume(file: Path) -> None:
    header = _header(file)
    with _open(file) as stream:
        if header.compressed_from is None:
            found = stream.seek(0, 2) - header.offset
        else:
            stream.seek(header.compressed_from)
            found = sum(map(len, inflated(stream)))
            if header.compressed_from == 0:
                found -= header.offset
    if found < header.size:
        raise DamagedError(
            f"it is cut short: {max(found, 0):,} of {header.size:,} bytes of pixels; copy or write it again"
        )


def _header(file: Path) -> Header:
    with _open(file) as stream:
        start = stream.read(1024)
        _name_what_is_no_image(start)
        for ending, read in HEADERS.items():
            if Path(file).name.endswith(ending):
                stream.seek(0)
                return read(stream)
    return Header((), 0, 0)  # no format of nnU-Net's: its reader says so


def _name_what_is_no_image(start: bytes) -> None:
    if not start:
        raise DamagedError("it is empty")
    if start.startswith(b"version https://git-lfs"):
        raise DamagedError("it is a Git LFS pointer, not the file itself; fetch that with: git lfs pull")
    if start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise DamagedError("it is a web page; download the file itself")


def _raster_format(file: Path) -> str:
    with _open(file) as stream:
        start = stream.read(1024)
    _name_what_is_no_image(start)
    found = next((name for name, signatures in RASTER_FORMATS.items() if start.startswith(signatures)), None)
    if found is None:
        raise DamagedError(f"it is none of {', '.join(RASTER_FORMATS)}, whatever its name says")
    return found


def _check_raster(file: Path) -> None:
    kind = _raster_format(file)
    with _open(file) as stream:
        if kind == "PNG":
            _check_png(stream)
        elif kind == "TIFF":
            _check_tiff(stream)


def _check_png(stream: BinaryIO) -> None:
    stream.seek(len(PNG))
    kind = b""
    while kind != b"IEND":
        length, kind = int.from_bytes(stream.read(4), "big"), stream.read(4)
        check = zlib.crc32(kind)
        while length:
            piece = stream.read(min(length, CHUNK))
            if not piece:
                raise EOFError
            check, length = zlib.crc32(piece, check), length - len(piece)
        stored = stream.read(4)
        if len(stored) < 4:
            raise EOFError
        if int.from_bytes(stored, "big") != check:
            raise DamagedError("its pixels are damaged (check sum); copy or write it again")


def _check_tiff(stream: BinaryIO) -> None:
    """Follow the chain of pages to its end; a reader takes a torn chain for a shorter volume."""
    start = stream.read(16)
    order: Literal["little", "big"] = "little" if start[:2] == b"II" else "big"
    large = int.from_bytes(start[2:4], order) == 43  # BigTIFF
    number, entry, offset = (8, 20, 8) if large else (2, 12, 4)

    def integer(size: int) -> int:
        found = stream.read(size)
        if len(found) < size:
            raise EOFError
        return int.from_bytes(found, order)

    stream.seek(8 if large else 4)
    seen: set[int] = set()
    while (page := integer(offset)) and page not in seen:
        seen.add(page)
        stream.seek(page)
        stream.seek(entry * integer(number), 1)
    stream.seek(0)
    with tifffile.TiffFile(stream) as tiff:
        ends = [sum(end) for page in tiff.pages for end in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if max(ends, default=0) > stream.seek(0, 2):
        raise EOFError


def _raster_pixels(file: Path) -> int:
    kind = _raster_format(file)
    if kind == "TIFF":
        with tifffile.TiffFile(file) as tiff:
            return sum(prod(series.shape) for series in tiff.series)
    with Image.open(file, formats=[kind]) as image:
        return image.width * image.height * len(image.getbands())
