"""What a file may hold instead of what it should, and a command line that has to live with it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from nnunetv2_guidino.cli import main

SECONDS = 60  # a command on files as small as these that takes longer hangs
FUZZ = settings(
    max_examples=int(os.environ.get("GUIDINO_FUZZ_EXAMPLES", "0")) or 40,
    derandomize="GUIDINO_FUZZ_EXAMPLES" not in os.environ,  # with more examples, other ones each time
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**30) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)
# What might be meant, and is too small, too large, or of another kind.
NEAR = st.sampled_from([0, 1, 2, 3, 7, -1, 0.5, 10**6, 10**9, "", "1", "last", [], {}, [1], [1, 2], [[1, 1]], True])
# In place of a whole file: nothing, text of other kinds, JSON of other shapes, too deep, too large a number.
CONTENTS = st.sampled_from(
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b"3",
        b'"x"',
        b"[" * 100_000,
        b'{"a": 1e999}',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
        b"<!DOCTYPE html><html></html>",
        b"PK\x03\x04",
        b"\x1f\x8b\x08\x00",
        b"\0" * 600,
    ]
) | st.binary(max_size=40)


def paths(tree: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of every value in it."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for key, value in items for found in [(*prefix, key), *paths(value, (*prefix, key))]]


def at(tree: Any, path: tuple[Any, ...]) -> Any:
    """The value there."""
    for key in path:
        tree = tree[key]
    return tree


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value there; it is removed for Ellipsis."""
    copy = json.loads(json.dumps(tree))
    place = copy
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copy


@st.composite
def spoiled(draw: st.DrawFn, data: bytes) -> bytes:
    """Cut short, or with other bytes, most of them in the header."""
    if draw(st.booleans()):
        return data[: draw(st.integers(0, len(data) - 1))]
    copy = bytearray(data)
    for _ in range(draw(st.sampled_from([1, 2, 8]))):
        copy[draw(st.integers(0, min(len(data), draw(st.sampled_from([60, 400, 10**6]))) - 1))] = draw(
            st.integers(0, 255)
        )
    return bytes(copy)


class Damage(NamedTuple):
    """A file, what happens to it, and words of which one belongs into a complaint."""

    file: Path
    how: str  # content, folder, fifo, link, gone
    content: bytes = b""
    words: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shown = self.content if len(self.content) < 2000 else self.content[:100]
        return f"{self.file.name}: {self.how} {shown!r} {self.words[1:]}"


@st.composite
def damages(draw: st.DrawFn, files: dict[Path, bytes]) -> Damage:
    """Something happens to one of the files, given with what they hold: anything anywhere in JSON, bytes elsewhere."""
    file = draw(st.sampled_from(sorted(files)))
    sound, words = files[file], (file.name,)
    where = (
        file.stem,
        str(file.parent),
    )  # of what is not there, its folder or a file of its name
    kind = draw(st.sampled_from(["value", "value", "value", "bytes", "bytes", "content", "other"]))
    if kind == "other":
        return Damage(file, draw(st.sampled_from(["folder", "fifo", "link", "gone"])), words=(*words, *where))
    if kind == "content":
        return Damage(file, "content", draw(CONTENTS), words)
    if kind == "value" and file.suffix == ".json":
        tree = json.loads(sound)
        path = draw(st.sampled_from(paths(tree)))
        value = draw(VALUES | st.just(...) | NEAR | st.sampled_from(paths(tree)).map(lambda other: at(tree, other)))
        keys = tuple(str(key) for key in path)
        return Damage(file, "content", json.dumps(changed(tree, path, value)).encode(), words + keys)
    return Damage(file, "content", draw(spoiled(sound)), words)


@contextlib.contextmanager
def inflicted(damage: Damage, sound: bytes) -> Iterator[None]:
    """The damage for a while."""
    damage.file.unlink()
    try:
        if damage.how == "folder":
            damage.file.mkdir()
        elif damage.how == "fifo":
            os.mkfifo(damage.file)
        elif damage.how == "link":
            damage.file.symlink_to(damage.file.with_name("nowhere"))
        elif damage.how == "content":
            damage.file.write_bytes(damage.content)
        yield
    finally:
        if damage.file.is_dir():
            damage.file.rmdir()
        damage.file.unlink(missing_ok=True)
        damage.file.write_bytes(sound)


class HangError(BaseException):
    """A command that does not end; no `except Exception` may swallow it."""


@contextlib.contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    def hangs(*_: Any) -> None:
        raise HangError(f"the command did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, output and complaint of `guidino …`; a traceback or a hang fails the test."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), no_longer_than(SECONDS):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return code, out.getvalue(), err.getvalue()


@dataclass
class Scene:
    """A command that works, the files that it reads, and what it writes.

    Args:
        arguments: Of `guidino`.
        files: Which it reads, with what they hold.
        outputs: Files and folders that it makes.
        prepare: Called before each run, as for caches.
        option: By which complaints name a file too.
    """

    arguments: list[object]
    files: list[Path]
    outputs: list[Path] = field(default_factory=list)
    prepare: Callable[[], object] = lambda: None
    option: str = "no option"

    def __post_init__(self) -> None:
        self.sound = {file: file.read_bytes() for file in self.files}

    def play(self) -> tuple[int, str]:
        """Exit code and complaint, after whatever holds for every command."""
        for output in self.outputs:
            shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)
        self.prepare()
        code, _, error = run(*self.arguments)
        check(code, error, str(self.arguments[0]))
        for output in self.outputs:
            assert output.exists() == (code == 0), f"{output} exists: {output.exists()}, after exit code {code}"
            assert not half_written(output.parent), half_written(output.parent)
        return code, error


def check(code: int, error: str, command: str) -> None:
    """Success, or one clear line; argparse shows the usage too, and convert what it found on the way."""
    assert code in (0, 1, 2), error
    assert "Traceback" not in error, error
    lines = [line for line in error.replace("\r", "\n").split("\n") if line.strip() and "%|" not in line]  # progress
    complaints = [line for line in lines if line.startswith(f"guidino {command}") and ": error: " in line]
    assert len(complaints) == (code != 0) or command == "doctor", error
    if code == 1 and command not in ("convert", "doctor"):
        assert len(lines) == 1, error
    if code == 1:  # argparse says again what was typed, as it was typed
        assert all(line.isprintable() for line in complaints), repr(error)


def half_written(folder: Path) -> list[Path]:
    """What is in the making there."""
    return list(folder.rglob(".writing-*"))


def play_damaged(scene: Scene, damage: Damage) -> None:
    """Play a scene with one file damaged; a refusal has to name the file or the key."""
    with inflicted(damage, scene.sound[damage.file]):
        code, error = scene.play()
    if code:
        assert any(word in error for word in (*damage.words, scene.option)), error
