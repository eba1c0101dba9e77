"""Files and folders that appear whole or not at all, and JSON whose every complaint names the file."""

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
UNFINISHED = ".writing-"  # begins the names of what is not yet whole
LONGEST = 255  # bytes of a file's name


def unfinished_path(path: Path) -> Path:
    """Where what is to become `path` is written: beside it, with its ending, and with the host and process that write.

    A disk may be shared, and only its own host knows whether a process is still there.
    """
    mark = _mark_of_process()
    room = LONGEST - len(mark.encode())
    return path.with_name(mark + path.name.encode(errors="surrogateescape")[-room:].decode(errors="ignore"))


def _mark_of_host() -> str:
    """How the names of what this host has not finished begin."""
    return f"{UNFINISHED}{re.sub('[^A-Za-z0-9.]', '_', socket.gethostname())[:64]}-"


def _mark_of_process() -> str:
    return f"{_mark_of_host()}{os.getpid()}-"


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """A path beside `file`, with its ending, to write to; at the end it takes the place of `file`.

    A kill at any moment leaves the earlier file, and the next writing of the same file removes what was left over.

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
    """Write a text file whole or not at all, in UTF-8; raises GuidinoError as `whole_file` does."""
    with whole_file(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(file: Path, content: Any, indent: int = 4) -> None:
    """Write a JSON file whole or not at all; raises GuidinoError as `whole_file` does."""
    write_text(file, json.dumps(content, indent=indent) + "\n")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `folder` at the end; if the end is not reached, it vanishes.

    Raises:
        GuidinoError: If `folder` exists, or cannot be written.
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
                _refuse_existing(folder)
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise GuidinoError(f"{folder} cannot be written: {error.strerror or error}") from error


@contextmanager
def filled_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files all move into `folder` at the end, over those of an earlier run, or none do.

    Raises:
        GuidinoError: If `folder` cannot be written; what lay in it is there as before.
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
    """Write files into a folder, all or none of them; raises GuidinoError as `filled_folder` does."""
    with filled_folder(folder) as new:
        for name, content in contents.items():
            (new / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def _make(folder: Path) -> list[Path]:
    """Make a folder and those above it where they are not there; returns the new ones, the innermost first."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return new


@contextmanager
def _removed_unless_filled(folders: list[Path]) -> Iterator[None]:
    """Leave no empty folders where nothing came into them."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # the first that is not empty: others write there too
            for folder in folders:
                folder.rmdir()
        raise


def _move_all(source: Path, target: Path, old: Path) -> None:
    """Move what is in `source` into `target`; what it replaces waits in `old`, and comes back if anything fails."""
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
    """Remove what processes of this host that are no longer there did not finish in `folder`.

    Args:
        folder: Where they wrote; it need not exist.
        name: Of what they were writing; empty: whatever it was.
    """
    mark = _mark_of_host()
    wanted = unfinished_path(folder / name).name.removeprefix(mark).partition("-")[2] if name else ""
    for leftover in folder.glob(f"{UNFINISHED}*"):
        process, _, written = leftover.name.removeprefix(mark).partition("-")
        if not process.isdigit() or (name and written != wanted) or _is_running(int(process)):
            continue  # also what another host writes, and whether that goes on is not known here
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
        pass  # somebody else's
    return True


def read_text(file: Path) -> str:
    """The text of a regular file in UTF-8, without its byte order mark.

    Raises:
        GuidinoError: If the file is not there, cannot be read, or is of a kind that may never end, such as a FIFO.
        ValueError: If it is not in UTF-8.
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
    """The object (`kind` dict) or list in a JSON file, with or without a byte order mark.

    Raises:
        GuidinoError: If the file is not there, cannot be read, is no JSON, or holds something else.
    """
    try:
        content = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise GuidinoError(f"{file} is no JSON file, or was cut short: {error}") from error
    if not isinstance(content, kind):
        expected = "an object" if kind is dict else "a list"
        raise GuidinoError(f"{file} holds {type(content).__name__}; expected {expected}")
    return content
