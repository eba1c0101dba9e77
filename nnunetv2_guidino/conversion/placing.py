"""A data set comes to its place complete or not at all, and takes nobody else's."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nnunetv2_guidino.conversion.target import problems_of_target
from nnunetv2_guidino.errors import GuidinoError


@contextmanager
def complete_or_absent(target: Path, overwrite: bool) -> Iterator[Path]:
    """A folder to fill, which becomes `target` at the end.

    If anything goes wrong before, SIGTERM too, `target` stays as it was and the folder is removed. What came to
    `target` meanwhile, or has its id, is left alone unless `overwrite`.

    Raises:
        GuidinoError: If somebody else was faster, or it cannot be written.
    """
    mark = f"{os.getpid()}-{secrets.token_hex(4)}"
    folder, old = (target.with_name(f".{target.name}.{what}-{mark}") for what in ("incomplete", "old"))
    try:
        with _sigterm_unwinds():
            folder.mkdir(parents=True)
            yield folder
            with _nobody_else_moves(target.parent):
                if problems := problems_of_target(target, overwrite):
                    raise GuidinoError(f"{problems[0]}. It came while this conversion ran, which changed nothing")
                _take_place(folder, target, old)
    except OSError as error:
        raise GuidinoError(f"{target} could not be written: {error}; nothing was changed") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take_place(folder: Path, target: Path, old: Path) -> None:
    try:
        if target.exists():
            target.rename(old)
        folder.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Let SIGTERM end the program as an exception does, so that what is half-made is removed."""

    def stop(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _nobody_else_moves(folder: Path) -> Iterator[None]:
    """Let other conversions wait while a data set moves into `folder`, where system and file system can."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot; two moves in one instant are unlikely all the same
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
