"""The files of a published data set, in folders and in zips."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.printable import printable

MAX_DEPTH = 3  # levels of subfolders; SRC may be the parent of the folder that a zip was unpacked into
MAX_BYTES = 512 * 2**20  # per file; Pillow opens no larger picture
HIDDEN = re.compile(r"(^|/)(\.|__MACOSX/)")


@dataclass(frozen=True)
class SourceFile:
    """A file in a folder or a zip. It holds no open handle, so another process can read it."""

    root: Path
    name: str  # below root, with forward slashes

    def __str__(self) -> str:
        return printable(f"{self.root}/{self.name}")

    @property
    def path(self) -> str:
        """The path that layouts match: `name` below the name of the folder or zip."""
        return f"{self.root.name.removesuffix('.zip')}/{self.name}"

    def read(self) -> bytes:
        """Return the contents. Raises ValueError or OSError, also if the file is not regular or exceeds MAX_BYTES."""
        try:
            with self._open() as stream:
                data = stream.read(MAX_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError) as error:
            # zipfile raises RuntimeError for encryption and NotImplementedError for an unknown compression
            raise ValueError(f"cannot be unpacked: {error}") from error
        _check_size(len(data))
        return data

    def _open(self) -> IO[bytes]:
        if self.root.is_file():
            archive = _archive(self.root)
            _check_size(archive.getinfo(self.name).file_size)
            return archive.open(self.name)
        file = self.root / self.name
        if file.exists() and not file.is_file():
            raise ValueError("is no regular file")
        _check_size(file.stat().st_size)
        return file.open("rb")


@dataclass(frozen=True)
class SourcePair:
    """An image and its mask as published, and the case that they become."""

    name: str  # nnU-Net's case identifier
    part: str  # part of the published set, such as Training; "" if it has none
    image: SourceFile
    mask: SourceFile


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(f"has {size / 2**20:,.0f} MiB; expected at most {MAX_BYTES // 2**20}")


@lru_cache(maxsize=8)
def _archive(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def list_files(sources: Iterable[Path]) -> list[SourceFile]:
    """List the files of folders (to a depth of MAX_DEPTH) and zips, except hidden files and macOS's shadow files.

    Raises:
        GuidinoError: If a source is no folder or zip, cannot be read, or is a zip with a path that leaves it.
    """
    files = []
    for source in (source.absolute() for source in sources):
        try:
            names = _list_folder(source) if source.is_dir() else _list_zip(source)
            files += [SourceFile(source, name) for name in sorted(names) if not HIDDEN.search(name)]
        except OSError as error:
            raise GuidinoError(f"{error.filename or source} cannot be read: {error.strerror or error}") from error
    return files


def _list_zip(source: Path) -> list[str]:
    if not source.is_file():
        fault = "is neither" if source.exists() else "does not exist"
        raise GuidinoError(f"{source}: {fault}; expected a folder or a zip file")
    try:
        names = [member.filename for member in _archive(source).infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise GuidinoError(f"{source}: expected a folder or a zip file ({error})") from None
    for name in names:
        if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
            raise GuidinoError(f"{source}: holds {name!r}, a path that leaves the archive; pack the files again")
    return names


def _list_folder(root: Path) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise error  # os.walk skips a folder that it cannot open, and its pairs would be missing silently

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=fail):
        below = Path(folder).relative_to(root)
        if len(below.parts) >= MAX_DEPTH:
            subfolders.clear()
        yield from ((below / name).as_posix() for name in names)
