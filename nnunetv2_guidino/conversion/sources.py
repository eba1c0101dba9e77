"""The files of a data set as published: below folders and inside zips."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from nnunetv2_guidino.errors import GuidinoError

MAX_DEPTH = 3  # folders below SRC: SRC may be the parent of what a zip unpacked into a folder of its own


@dataclass(frozen=True)
class SourceFile:
    """A file below a folder or inside a zip. It holds no handle, so that it can be sent to another process."""

    root: Path
    name: str  # below root, with forward slashes

    def __str__(self) -> str:
        return f"{self.root}/{self.name}"

    @property
    def path(self) -> str:
        """What the layouts are matched with: `name`, led by that of the folder or zip itself."""
        return f"{self.root.name.removesuffix('.zip')}/{self.name}"

    def read(self) -> bytes:
        return (self.root / self.name).read_bytes() if self.root.is_dir() else _archive(self.root).read(self.name)


@lru_cache(maxsize=8)
def _archive(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def list_files(sources: Iterable[Path]) -> list[SourceFile]:
    """All files of the folders (to a depth of MAX_DEPTH) and zips. Hidden ones and macOS's shadow files are left out.

    Raises GuidinoError for what is neither folder nor zip, and for a zip with a member outside of itself.
    """
    files = []
    for source in (source.absolute() for source in sources):
        if source.is_dir():
            names = list(_walk(source))
        elif source.is_file():
            names = _members(source)
        else:
            raise GuidinoError(f"{source}: does not exist; expected a folder or a zip file")
        shown = (name for name in sorted(names) if not re.search(r"(^|/)(\.|__MACOSX/)", name))
        files += [SourceFile(source, name) for name in shown]
    return files


def _members(archive: Path) -> list[str]:
    try:
        names = [member.filename for member in _archive(archive).infolist() if not member.is_dir()]
    except zipfile.BadZipFile as error:
        raise GuidinoError(f"{archive}: expected a folder or a zip file ({error})") from None
    for name in names:
        if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
            raise GuidinoError(f"{archive}: holds {name!r}, a path that leaves the archive: refused")
    return names


def _walk(root: Path) -> Iterator[str]:
    for folder, subfolders, names in os.walk(root, followlinks=True):
        below = Path(folder).relative_to(root)
        if len(below.parts) >= MAX_DEPTH:
            subfolders.clear()
        yield from ((below / name).as_posix() for name in names)
