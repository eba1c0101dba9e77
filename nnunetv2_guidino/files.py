"""Write files and folders as a whole or not at all, and read JSON with errors that name the file."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from nnunetv2_guidino.errors import GuidinoError

Json = TypeVar("Json", dict[str, Any], list[Any])
UNFINISHED = ".writing-"  # prefix of the names of unfinished files and folders
LONGEST = 255  # bytes in a file's name


def unfinished_path(path: Path) -> Path:
    """Return the path at which `path` is written: beside it, with its ending and the writer's host and process.

    The host is in the name because several hosts may share a disk, and only a process's host knows whether it runs.
    """
    mark = _mark_of_process()
    # The end of a long name is kept, since it holds the ending.
    room = LONGEST - len(mark.encode())
    return path.with_name(mark + path.name.encode(errors="surrogateescape")[-room:].decode(errors="ignore"))


def _mark_of_host() -> str:
    """Return the prefix of the names of this host's unfinished files."""
    return f"{UNFINISHED}{re.sub('[^A-Za-z0-9.]', '_', socket.gethostname())[:64]}-"


def _mark_of_process() -> str:
    return f"{_mark_of_host()}{os.getpid()}-"


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Yield a path beside `file`, with its ending, to write to, and rename it to `file` at the end.

    A kill at any moment leaves the earlier file, and the next write of the same file removes the unfinished one.

    Raises:
        GuidinoError: If the file cannot be written; nothing of it is left then.
    """
    file = Path(file)
    remove_leftovers(file.parent, file.name)
    unfinished = unfinished_path(file)
    try:
        yield unfinished
        unfinished.replace(file)
    except OSError as error:
        raise GuidinoError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write a text file in UTF-8, as a whole or not at all; raise GuidinoError as `whole_file` does."""
    with whole_file(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(file: Path, content: Any, indent: int = 4) -> None:
    """Write a JSON file as a whole or not at all; raise GuidinoError as `whole_file` does."""
    write_text(file, json.dumps(content, indent=indent) + "\n")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, and rename it to `folder` at the end; after an error, remove it.

    Raises:
        GuidinoError: If `folder` exists already or cannot be written.
    """
    folder = Path(folder).absolute()
    _refuse_existing(folder)
    remove_leftovers(folder.parent, folder.name)
    unfinished = unfinished_path(folder)
    try:
        with _removed_unless_filled(_make(folder.parent)):
            try:
                unfinished.mkdir()
                yield unfinished
                _refuse_existing(folder)  # another process may have made it meanwhile
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise GuidinoError(f"{folder} cannot be written: {error.strerror or error}") from error


@contextmanager
def filled_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, and at the end move all its files into `folder` or none of them.

    The files replace those of an earlier run.

    Raises:
        GuidinoError: If `folder` cannot be written; its earlier files are unchanged then.
    """
    folder = Path(folder)
    try:
        made = _make(folder)
        remove_leftovers(folder)
        mark = _mark_of_process()
        with _removed_unless_filled(made), tempfile.TemporaryDirectory(dir=folder, prefix=mark) as temporary:
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            new.mkdir()
            old.mkdir()
            yield new
            _move_all(new, folder, old)
    except OSError as error:
        raise GuidinoError(f"{folder} cannot be written: {error.strerror or error}") from error


def write_files(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write all files into a folder or none of them; raise GuidinoError as `filled_folder` does.

    Args:
        folder: Folder to write to.
        contents: Text or bytes by file name.
    """
    with filled_folder(folder) as new:
        for name, content in contents.items():
            (new / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def _make(folder: Path) -> list[Path]:
    """Make a folder and its missing parents, and return the new ones, the innermost first."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return new


@contextmanager
def _removed_unless_filled(folders: list[Path]) -> Iterator[None]:
    """Remove the new folders after an error, if they are empty."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # a folder that is not empty ends the loop: another process writes there
            for folder in folders:
                folder.rmdir()
        raise


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


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise GuidinoError(f"{path} exists already; give another name, or remove it")


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove unfinished files and folders in `folder` that ended processes of this host have left.

    Args:
        folder: Folder to clean; it need not exist.
        name: Name of the file or folder that the processes were writing; empty for any name.
    """
    mark = _mark_of_host()
    wanted = unfinished_path(folder / name).name.removeprefix(mark).partition("-")[2] if name else ""
    for leftover in folder.glob(f"{UNFINISHED}*"):
        process, _, written = leftover.name.removeprefix(mark).partition("-")
        if not process.isdigit() or (name and written != wanted) or _is_running(int(process)):
            continue  # files of another host stay too, since this host does not know whether their process runs
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # the process belongs to another user
    return True


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
