"""Headers of the volumes that nnU-Net reads: NIfTI, MetaImage, NRRD and GIPL."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from math import prod
from typing import BinaryIO, NamedTuple

import nibabel

CHUNK = 1 << 20
GZIP = b"\x1f\x8b"
META_BYTES = {
    f"MET_{sign}{kind}": size
    for kind, size in (
        ("CHAR", 1),
        ("SHORT", 2),
        ("INT", 4),
        ("LONG", 4),
        ("LONG_LONG", 8),
        ("FLOAT", 4),
        ("DOUBLE", 8),
    )
    for sign in ("", "U")
}
NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4
    ),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), 8),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t", "double"), 8),
}
GIPL_BITS = {1: 1, 7: 8, 8: 8, 15: 16, 16: 16, 31: 32, 32: 32, 64: 32, 65: 64}


class Header(NamedTuple):
    """What the header of a file says of its pixels."""

    shape: tuple[int, ...]
    offset: int  # where the pixels begin, in the file or, if all of it is compressed, in what it holds
    size: int  # bytes of the pixels when they are not compressed; 0: not known
    compressed_from: int | None = None  # where the compressed part of the file begins


class DamagedError(Exception):
    """What is wrong with a file, without its name."""


def inflated(stream: BinaryIO) -> Iterator[bytes]:
    """What a gzip or zlib stream holds, in pieces, to its last byte and check sum.

    Raises EOFError where it ends too early, and DamagedError where it does not fit its check sum.
    """
    rest = b""
    while True:
        decoder = zlib.decompressobj(wbits=47)  # gzip or zlib, whichever it is
        while not decoder.eof:
            rest = rest or stream.read(CHUNK)
            if not rest:
                raise EOFError
            try:
                piece = decoder.decompress(rest, CHUNK)
            except zlib.error as error:
                raise DamagedError(f"its compressed pixels are damaged ({error}); copy or write it again") from error
            rest = decoder.unconsumed_tail
            yield piece
        rest = decoder.unused_data or stream.read(CHUNK)
        if not rest.startswith(GZIP):  # gzip files may be joined; anything else behind the end is not looked at
            return


def _nifti(stream: BinaryIO) -> Header:
    compressed = stream.read(2) == GZIP
    stream.seek(0)
    start = b""
    for piece in inflated(stream) if compressed else iter(lambda: stream.read(CHUNK), b""):
        start += piece
        if len(start) >= 540:
            break
    if len(start) < 348:
        raise EOFError
    kind = {b"n+1\0": nibabel.Nifti1Header, b"n+2\0": nibabel.Nifti2Header}
    header = next((kind[m](start[:n]) for n, m in ((348, start[344:348]), (540, start[4:8])) if m in kind), None)
    if header is None:
        raise DamagedError("it is no NIfTI file of header and pixels")
    shape = tuple(int(side) for side in header.get_data_shape())
    size = prod(shape) * header.get_data_dtype().itemsize
    return Header(shape, int(header.get_data_offset()), size, 0 if compressed else None)


def _meta_image(stream: BinaryIO) -> Header:
    fields: dict[str, str] = {}
    while "ElementDataFile" not in fields:
        line = stream.readline(4096)
        name, separator, value = line.decode("latin-1").partition("=")
        if not separator:
            raise DamagedError("it is no MetaImage file, or its header is cut short")
        fields[name.strip()] = value.strip()
    if fields["ElementDataFile"].upper() != "LOCAL":
        raise DamagedError("its pixels lie in another file; write both as one .mha")
    shape = tuple(map(int, fields["DimSize"].split()))
    if fields["ElementType"] not in META_BYTES:
        raise DamagedError(f"its ElementType {fields['ElementType']} is not known")
    size = prod(shape) * META_BYTES[fields["ElementType"]] * int(fields.get("ElementNumberOfChannels", 1))
    if fields.get("BinaryData", "True").lower() == "false":
        size = 0  # numbers as text: ITK counts them
    compressed = fields.get("CompressedData", "False").lower() == "true"
    return Header(shape, stream.tell(), size, stream.tell() if compressed else None)


def _nrrd(stream: BinaryIO) -> Header:
    if not stream.readline(4096).startswith(b"NRRD"):
        raise DamagedError("it is no NRRD file")
    fields: dict[str, str] = {}
    while (line := stream.readline(65536)).strip():
        name, _, value = line.decode("latin-1").partition(":")
        fields[name.strip().lower()] = value.strip()
    if "data file" in fields or "datafile" in fields:
        raise DamagedError("its pixels lie in another file; write both as one .nrrd")
    shape = tuple(map(int, fields["sizes"].split()))
    encoding = fields.get("encoding", "raw").lower()
    size = prod(shape) * NRRD_BYTES.get(fields["type"].lower(), 0)
    if encoding not in ("raw", "gzip", "gz") or "line skip" in fields or "byte skip" in fields:
        size, encoding = 0, "raw"  # ITK's reader counts these itself
    return Header(shape, stream.tell(), size, None if encoding == "raw" else stream.tell())


def _gipl(stream: BinaryIO) -> Header:
    start = stream.read(256)
    if len(start) < 256:
        raise EOFError
    shape = tuple(int.from_bytes(start[i : i + 2], "big") for i in range(0, 8, 2))
    bits = GIPL_BITS.get(int.from_bytes(start[8:10], "big"))
    if bits is None:
        raise DamagedError("it is no GIPL file of a known type")
    shape = tuple(side for side in shape if side) or (0,)
    return Header(shape, 256, (prod(shape) * bits + 7) // 8)


HEADERS: dict[str, Callable[[BinaryIO], Header]] = {
    ".nii": _nifti,
    ".nii.gz": _nifti,
    ".mha": _meta_image,
    ".nrrd": _nrrd,
    ".gipl": _gipl,
}
