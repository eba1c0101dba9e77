"""The files of a data set as published: below folders and inside zips."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.printable import printable

MAX_DEPTH = 3  # folders below SRC: SRC may be the parent of what a zip unpacked into a folder of its own
MAX_BYTES = 512 * 2**20  # of one file: more than the largest picture Pillow opens, and what a worker can hold


@dataclass(frozen=True)
class SourceFile:
    """A file below a folder or inside a zip. It holds no handle, so that it can be sent to another process."""

    root: Path
    name: str  # below root, with forward slashes

    def __str__(self) -> str:
        return printable(f"{self.root}/{self.name}")

    @property
    def path(self) -> str:
        """What the layouts are matched with: `name`, led by that of the folder or zip itself."""
        return f"{self.root.name.removesuffix('.zip')}/{self.name}"

    def read(self) -> bytes:
        """The contents. Raises ValueError or OSError, also for what is no regular file or larger than MAX_BYTES."""
        return self._read_member() if self.root.is_file() else self._read_file()

    def _read_file(self) -> bytes:
        file = self.root / self.name
        if file.exists() and not file.is_file():
            raise ValueError("is no regular file")
        _check_size(file.stat().st_size)
        with file.open("rb") as stream:
            return _bounded(stream.read(MAX_BYTES + 1))

    def _read_member(self) -> bytes:
        try:
            archive = _archive(self.root)
            _check_size(archive.getinfo(self.name).file_size)
            with archive.open(self.name) as stream:
                return _bounded(stream.read(MAX_BYTES + 1))
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError) as error:
            # RuntimeError: encrypted, or NotImplementedError: packed in a way that Python does not know
            raise ValueError(f"cannot be unpacked: {error}") from error


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(f"has {size / 2**20:,.0f} MiB; expected at most {MAX_BYTES // 2**20}")


def _bounded(data: bytes) -> bytes:
    _check_size(len(data))
    return data


@lru_cache(maxsize=8)
def _archive(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def list_files(sources: Iterable[Path]) -> list[SourceFile]:
    """All files of the folders (to a depth of MAX_DEPTH) and zips. Hidden ones and macOS's shadow files are left out.

    Raises:
        GuidinoError: For what is neither folder nor zip or cannot be read, and for a zip with a member outside of
            itself.
    """
    files = []
    for source in (source.absolute() for source in sources):
        try:
            names = _names_in(source)
        except OSError as error:
            raise GuidinoError(f"{error.filename or source} cannot be read: {error.strerror or error}") from error
        shown = (name for name in sorted(names) if not re.search(r"(^|/)(\.|__MACOSX/)", name))
        files += [SourceFile(source, name) for name in shown]
    return files


def _names_in(source: Path) -> list[str]:
    if source.is_dir():
        return list(_walk(source))
    if source.is_file():
        return _members(source)
    what = "is neither" if source.exists() else "does not exist"
    raise GuidinoError(f"{source}: {what}; expected a folder or a zip file")


def _members(archive: Path) -> list[str]:
    try:
        names = [member.filename for member in _archive(archive).infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise GuidinoError(f"{archive}: expected a folder or a zip file ({error})") from None
    for name in names:
        if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
            raise GuidinoError(f"{archive}: holds {name!r}, a path that leaves the archive: refused")
    return names


def _walk(root: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise error  # else the pairs of a folder that cannot be opened would be missing without a word

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refuse):
        below = Path(folder).relative_to(root)
        if len(below.parts) >= MAX_DEPTH:
            subfolders.clear()
        yield from ((below / name).as_posix() for name in names)
