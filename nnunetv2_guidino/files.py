"""Write files and folders as a whole or not at all, and read JSON with errors that name the file.

Unfinished work lies beside its target in a hidden folder .writing-XXXX, whose writer holds the lock .writing-XXXX.lock
until its process ends. The next writer there removes the work of writers that hold no lock any more. Host names and
process numbers do not matter, since two containers may share both.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from nnunetv2_guidino.errors import GuidinoError

Json = TypeVar("Json", dict[str, Any], list[Any])
UNFINISHED = ".writing-"  # prefix of the names of unfinished work and its locks
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # errors of file systems that have no flock
# Without flock, filelock would take the existence of the file for the lock, which outlives a killed process.
ProcessLock = functools.partial(FileLock, fallback_to_soft=False)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Wait for the lock in a file, hold it, and remove the file at the end.

    Where the file system has no flock (some Lustre and NFS), say so once and go on without a lock.
    """
    lock = ProcessLock(file)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        _tell_once(f"{file.parent}: has no file locks, so unfinished work of killed processes stays there")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # before the release: a process that waits for this file then makes a new one
        lock.release()


@functools.cache
def _tell_once(message: str) -> None:
    print(message, file=sys.stderr)


@contextmanager
def _unfinished(target: Path, folder: Path) -> Iterator[Path]:
    """Yield a hidden folder for the unfinished files of `target`; raise GuidinoError for an OSError.

    It lies in `folder` or the nearest of its parents that exists.
    """
    try:
        folder = next(path for path in (folder, *folder.parents) if path.exists())
        for leftover in folder.glob(f"{UNFINISHED}*.lock"):
            with suppress(OSError, Timeout), ProcessLock(leftover, timeout=0):
                for old in leftover.with_suffix("").glob("old/*"):
                    if not (folder / old.name).exists():  # the writer was killed just before it replaced this one
                        old.rename(folder / old.name)
                shutil.rmtree(leftover.with_suffix(""), ignore_errors=True)
                leftover.unlink()
        descriptor, name = tempfile.mkstemp(".lock", UNFINISHED, folder)
        os.close(descriptor)
        with locked(Path(name)):
            place = Path(name).with_suffix("")
            try:
                place.mkdir()
                yield place
            finally:
                shutil.rmtree(place, ignore_errors=True)
    except OSError as error:
        raise GuidinoError(f"{target} cannot be written: {error.strerror or error}") from error


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Yield a path of the same name to write to, and move it to `file` at the end; a kill leaves the earlier file.

    Raises:
        GuidinoError: If the file cannot be written; nothing of it is left then.
    """
    file = Path(file).absolute()
    with _unfinished(file, file.parent) as place:
        yield place / file.name
        (place / file.name).replace(file)


def write_text(file: Path, text: str) -> None:
    """Write a text file in UTF-8, as a whole or not at all; raise GuidinoError as `whole_file` does."""
    with whole_file(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(file: Path, content: Any, indent: int = 4) -> None:
    """Write a JSON file as a whole or not at all; raise GuidinoError as `whole_file` does."""
    write_text(file, json.dumps(content, indent=indent) + "\n")


@contextmanager
def whole_folder(folder: Path, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill, and move it to `folder` at the end; after an error, remove it.

    Args:
        folder: Folder to write.
        replace: Replace an existing folder; else refuse it.

    Raises:
        GuidinoError: If `folder` exists already or cannot be written; an existing one is unchanged then.
    """
    folder = Path(folder).absolute()
    _refuse_existing(folder, replace)
    with _moved_into(folder.parent, folder) as new:
        (new / folder.name).mkdir()
        yield new / folder.name
        _refuse_existing(folder, replace)  # another process may have made it meanwhile


@contextmanager
def filled_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, and at the end move all its files into `folder` or none of them.

    The files replace those of an earlier run.

    Raises:
        GuidinoError: If `folder` cannot be written; its earlier files are unchanged then.
    """
    folder = Path(folder).absolute()
    with _moved_into(folder, folder) as new:
        yield new


@contextmanager
def _moved_into(folder: Path, target: Path) -> Iterator[Path]:
    with _unfinished(target, folder) as place:
        new, old = place / "new", place / "old"
        new.mkdir()
        old.mkdir()
        yield new
        folder.mkdir(parents=True, exist_ok=True)
        _move_all(new, folder, old)


def write_files(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write all files into a folder or none of them; raise GuidinoError as `filled_folder` does.

    Args:
        folder: Folder to write to.
        contents: Text or bytes by file name.
    """
    with filled_folder(folder) as new:
        for name, content in contents.items():
            (new / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def _move_all(source: Path, target: Path, old: Path) -> None:
    """Move all entries of `source` into `target`. Replaced entries wait in `old` and return if anything fails."""
    moved: list[Path] = []
    try:
        for entry in sorted(source.iterdir()):
            place = target / entry.name
            if place.exists():
                place.rename(old / entry.name)
            entry.rename(place)
            moved.append(place)
    except OSError:
        for place in moved:
            place.rename(source / place.name)
        for entry in old.iterdir():
            entry.rename(target / entry.name)
        raise


def _refuse_existing(path: Path, replace: bool) -> None:
    if path.exists() and not replace:
        raise GuidinoError(f"{path} exists already; give another name, or remove it")


def download_fault(start: bytes) -> str:
    """Return the fault of a file with this start, a Git LFS pointer or a web page in its place; "" for others."""
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself; fetch the file with: git lfs pull"
    if start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "is a web page, not the file itself; open the address in a browser, and download the file again"
    return ""


def read_text(file: Path) -> str:
    """Return the text of a regular file in UTF-8, without its byte order mark.

    Raises:
        GuidinoError: If the file does not exist, cannot be read, or is no regular file: reading a FIFO may never end.
        ValueError: If the file is not in UTF-8.
    """
    try:
        if not stat.S_ISREG(Path(file).stat().st_mode):
            raise GuidinoError(f"{file} is no regular file; expected a file with text in it")
        return Path(file).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise GuidinoError(f"{file} does not exist") from error
    except OSError as error:
        raise GuidinoError(f"{file} cannot be read: {error.strerror or error}") from error


def read_json(file: Path, kind: type[Json]) -> Json:
    """Return the object or list in a JSON file, with or without a byte order mark.

    Args:
        file: Path of the file.
        kind: dict for an object, list for a list.

    Raises:
        GuidinoError: If the file does not exist, cannot be read, is not JSON, or holds another kind.
    """
    try:
        content = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise GuidinoError(f"{file} is no JSON file, or was cut short: {error}") from error
    if not isinstance(content, kind):
        expected = "an object" if kind is dict else "a list"
        raise GuidinoError(f"{file} holds {type(content).__name__}; expected {expected}")
    return content
