"""Check that image files are whole, and count their pixels from the header.

SimpleITK, which nnU-Net uses for most volumes, fills the missing part of a cut .nii.gz with memory contents and takes
damaged pixels of a compressed .mha without an error. This module reads compressed pixels to their check sum.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import BinaryIO, cast

import nibabel
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image, UnidentifiedImageError

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import download_fault

NIFTI_ENDINGS = (".nii", ".nii.gz")
ITK_ENDINGS = (".mha", ".nrrd")
RASTER_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
RASTER_FORMATS = ("PNG", "BMP", "JPEG")  # Pillow must not try others: it starts Ghostscript for EPS


class DamagedError(Exception):
    """A fault of a file; the message has no file name."""


def check_whole(file: Path) -> None:
    """Check that an image file is whole and of the format that its name says.

    NIfTI must have all bytes that the header asks for, TIFF all pages. Compressed pixels and PNG must match their check
    sums. SimpleITK checks the length of MetaImage and NRRD. The readers of BMP and JPEG refuse cut files themselves.
    Other formats, such as GIPL, are not checked.

    Raises:
        GuidinoError: If the file does not exist, is no regular file, cannot be read, or is not whole.
    """
    with _named(file), _open(file) as stream:
        if file.name.endswith(NIFTI_ENDINGS):
            _check_nifti(stream)
        elif file.suffix in ITK_ENDINGS:
            if file.suffix == ".mha":
                _check_metaimage(stream)
            sitk.ReadImage(str(file))
        elif file.suffix in RASTER_ENDINGS and _is_tiff(stream):
            _check_tiff(stream)
        elif file.suffix in RASTER_ENDINGS:
            with _pillow_image(stream) as image:
                image.verify()


def stored_pixels(file: Path) -> int:
    """Return the number of values in an image, from its header alone.

    Raises:
        GuidinoError: As `check_whole` does, for a header that cannot be read.
    """
    with _named(file), _open(file) as stream:
        if file.name.endswith(NIFTI_ENDINGS):
            return _values(_open_nifti(stream)[0].get_data_shape())
        if file.suffix not in RASTER_ENDINGS:
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(file))
            reader.ReadImageInformation()
            return prod(reader.GetSize())
        if _is_tiff(stream):
            with tifffile.TiffFile(stream) as tiff:
                return sum(prod(series.shape) for series in tiff.series)
        with _pillow_image(stream) as image:
            return image.width * image.height * len(image.getbands())


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Turn every error into a GuidinoError that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise GuidinoError(f"{file} does not exist") from error
    except Exception as error:  # SimpleITK, nibabel, tifffile, Pillow, gzip and zlib raise errors of their own
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        if not isinstance(error, DamagedError) and getattr(error, "errno", None) is None:
            reason = f"it is cut short or damaged ({reason.splitlines()[-1]}); copy or write it again"
        raise GuidinoError(f"{file} cannot be read: {reason}") from error


@contextmanager
def _open(file: Path) -> Iterator[BinaryIO]:
    """Open a regular file that may be an image; a device or a pipe may have no end."""
    if file.exists() and not file.is_file():
        raise DamagedError("it is no regular file")
    with file.open("rb") as stream:
        start = stream.read(1024)
        if not start:
            raise DamagedError("it is empty")
        if fault := download_fault(start):
            raise DamagedError(f"it {fault}")
        stream.seek(0)
        yield stream


def _check_nifti(stream: BinaryIO) -> None:
    header, content = _open_nifti(stream)
    expected = _values(header.get_data_shape()) * header.get_data_dtype().itemsize
    found = content.seek(0, 2) - int(header.get_data_offset())  # gzip checks its sum at the end
    if found < expected:
        raise DamagedError(
            f"it is cut short: {max(found, 0):,} of {expected:,} bytes of pixels; copy or write it again"
        )


def _values(sides: Sequence[int]) -> int:
    if min(sides, default=0) < 1:
        raise DamagedError(f"its header says that its sides are {', '.join(map(str, sides))}")
    return prod(map(int, sides))


def _open_nifti(stream: BinaryIO) -> tuple[nibabel.Nifti1Header, BinaryIO]:
    """Return the header and the uncompressed content; .nii.gz may be the name of a file that is not compressed."""
    is_compressed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    content = cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if is_compressed else stream
    start = content.read(540)
    for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        size = kind.template_dtype.itemsize
        if len(start) >= size and kind.may_contain_header(start):
            return kind(start[:size], check=False), content
    raise DamagedError("it is no NIfTI file, or its header is cut short")


def _check_metaimage(stream: BinaryIO) -> None:
    """Decompress the pixels up to their check sum, which SimpleITK does not compare."""
    header, *pixels = re.split(rb"(?i)ElementDataFile *= *LOCAL *\r?\n", stream.read(), maxsplit=1)
    if pixels and re.search(rb"(?i)CompressedData *= *True", header):
        zlib.decompress(pixels[0])


def _is_tiff(stream: BinaryIO) -> bool:
    start = stream.read(2)
    stream.seek(0)
    return start in (b"II", b"MM")


def _pillow_image(stream: BinaryIO) -> Image.Image:
    try:
        return Image.open(stream, formats=RASTER_FORMATS)
    except UnidentifiedImageError:
        raise DamagedError("it is none of PNG, BMP, TIFF, JPEG, whatever its name says, or damaged") from None


def _check_tiff(stream: BinaryIO) -> None:
    """Follow the chain of pages to its end: a reader takes a torn chain for a shorter volume."""
    with tifffile.TiffFile(stream) as tiff:
        layout, page, pages = tiff.tiff, tiff.pages.first.offset, set[int]()
        while page:
            if page in pages:
                raise DamagedError("its pages follow each other in a circle; copy or write it again")
            pages.add(page)
            stream.seek(page)
            (entries,) = struct.unpack(layout.tagnoformat, stream.read(layout.tagnosize))
            stream.seek(entries * layout.tagsize, 1)
            (page,) = struct.unpack(layout.offsetformat, stream.read(layout.offsetsize))
        ends = [sum(end) for page in tiff.pages for end in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if max(ends, default=0) > stream.seek(0, 2):
        raise EOFError
