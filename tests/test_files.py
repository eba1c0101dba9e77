"""Files appear whole or not at all; what was left over goes, what is being written stays."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from nnunetv2_guidino import files
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import filled_folder, locked, read_json, whole_file, whole_folder

WRITERS = {"file": whole_file, "folder": whole_folder, "into a folder": filled_folder}
HALF = """
import sys, time
from pathlib import Path
from nnunetv2_guidino import files
with getattr(files, sys.argv[1])(Path(sys.argv[2])) as place:
    (place / "half" if place.is_dir() else place).write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


@contextmanager
def writer(path: Path, how: str) -> Iterator[subprocess.Popen]:
    """Start a process that writes `path` and never ends."""
    target = path.parent if how == "into a folder" else path
    command = [sys.executable, "-c", HALF, WRITERS[how].__name__, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"writing\n"
            yield process
        finally:
            process.kill()


def unfinished(folder: Path) -> set[Path]:
    return set(folder.glob(f"{files.UNFINISHED}*"))


def write(path: Path, how: str) -> None:
    if how == "file":
        with whole_file(path) as file:
            file.write_text("whole")
    elif how == "folder":
        with whole_folder(path) as folder:
            (folder / "part").write_text("whole")
    else:
        with filled_folder(path.parent) as folder:
            (folder / path.name).write_text("whole")


@pytest.mark.parametrize("how", WRITERS)
def test_only_what_killed_processes_left_goes(how, tmp_path):
    """A living writer may have a number that no process here has: it may run in a container of the same host name."""
    path = tmp_path / "a[1]*.json"
    with writer(path, how):
        alive = unfinished(tmp_path)
        with writer(path, how) as process:
            process.kill()
            process.wait()
        dead = unfinished(tmp_path) - alive
        assert dead
        with mock.patch("os.kill", side_effect=ProcessLookupError):
            write(path, how)
        assert unfinished(tmp_path) == alive
        assert set(tmp_path.iterdir()) == {path} | alive


def test_a_kill_between_two_moves_loses_nothing(tmp_path):
    """The folder to replace has moved away, and the new one is not in its place yet."""
    (tmp_path / ".writing-x.lock").touch()
    for name in ("gone", "replaced"):
        (tmp_path / ".writing-x" / "old" / name).mkdir(parents=True)
    (tmp_path / "replaced").mkdir()
    (tmp_path / ".writing-x" / "old" / "gone" / "part").write_text("old")
    write(tmp_path / "a", "file")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "gone", "replaced"}
    assert (tmp_path / "gone" / "part").read_text() == "old"


def test_a_folder_is_replaced_if_asked(tmp_path):
    write(tmp_path / "a", "folder")
    with pytest.raises(GuidinoError, match="exists already"):
        write(tmp_path / "a", "folder")
    with whole_folder(tmp_path / "a", replace=True) as folder:
        (folder / "other").touch()
        assert (tmp_path / "a" / "part").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["other"]
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("ä" * 125 + ".json")
    with writer(path, "file") as process:
        process.kill()
    write(path, "file")
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_has_one_holder(tmp_path):
    counter, file = tmp_path / "counter", tmp_path / "lock"
    counter.write_text("0")

    def count():
        with locked(file):
            before = int(counter.read_text())
            time.sleep(0.01)
            counter.write_text(str(before + 1))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == "8"
    assert not file.exists()


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_once(error, tmp_path, monkeypatch, capsys):
    with writer(tmp_path / "a", "file") as process:
        process.kill()
    left = unfinished(tmp_path)
    monkeypatch.setattr("fcntl.flock", mock.Mock(side_effect=OSError(error, os.strerror(error))))
    for how in WRITERS:
        write(tmp_path / how / "a" if how == "into a folder" else tmp_path / how, how)
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}: has no file locks, so unfinished work of killed processes stays there"
    ]
    assert unfinished(tmp_path) == left, "a living writer could not be told from a dead one"
    assert (tmp_path / "file").read_text() == "whole"


def test_what_may_never_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(GuidinoError, match=r"a\.json is no regular file"):
        read_json(tmp_path / "a.json", dict)
    with pytest.raises(GuidinoError, match="/dev/zero is no regular file"):
        files.read_text(Path("/dev/zero"))


def fill(context, error: Exception | None = None) -> None:
    with context as place:
        if place.is_dir():
            (place / "a").write_text("new")
            (place / "b").write_text("new")
        else:
            place.write_text("new")
        if error is not None:
            raise error


def test_nothing_of_what_fails_is_left(tmp_path):
    full = OSError(28, "No space left on device")
    with pytest.raises(GuidinoError, match=r"a.txt cannot be written: No space"):
        fill(whole_file(tmp_path / "a.txt"), full)
    with pytest.raises(ZeroDivisionError):
        fill(whole_folder(tmp_path / "b"), ZeroDivisionError())
    assert list(tmp_path.iterdir()) == []


def test_either_all_files_of_a_folder_are_new_or_none(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "in it").touch()
    real = os.rename

    def fails_at_b(source, target, *rest):
        if str(target) == str(tmp_path / "b") and "new" in str(source):
            raise OSError(28, "No space left on device")
        return real(source, target, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", fails_at_b)
        with pytest.raises(GuidinoError, match="No space"):
            fill(filled_folder(tmp_path))
    assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "b" / "in it").exists()
    assert not list(tmp_path.glob(f"{files.UNFINISHED}*"))


@pytest.mark.parametrize("written", [whole_folder, filled_folder])
def test_no_folders_are_left_where_nothing_came_into_them(written, tmp_path):
    with pytest.raises(ValueError, match="failed"), written(tmp_path / "a" / "b" / "c"):
        raise ValueError("failed")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").mkdir()
    with pytest.raises(ValueError, match="failed"), written(tmp_path / "kept" / "b"):
        raise ValueError("failed")
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]
