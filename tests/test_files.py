"""Files appear whole or not at all; what was left over goes, what is being written stays."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_guidino import files
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import filled_folder, read_json, unfinished_path, whole_file, whole_folder


@pytest.fixture
def gone() -> int:
    """The number of a process that has just ended: one that ended long ago may be another's by now."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left(path: Path, process: int, monkeypatch: pytest.MonkeyPatch, host: str | None = None) -> Path:
    """What `process` of `host` (None: this one) has left of its writing of `path`."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: process)
        if host is not None:
            patch.setattr(socket, "gethostname", lambda: host)
        unfinished = unfinished_path(path)
    unfinished.mkdir(parents=True)
    (unfinished / "half").write_text("half")
    return unfinished


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


@pytest.mark.parametrize("how", ["file", "folder", "into a folder"])
def test_only_what_this_host_s_dead_processes_left_goes(how, gone, tmp_path, monkeypatch):
    path = tmp_path / "a[1]*.json"
    dead = left(path, gone, monkeypatch)
    alive = left(path, os.getppid(), monkeypatch)
    elsewhere = left(path, gone, monkeypatch, host="node-17.cluster")
    write(path, how)
    assert not dead.exists()
    assert sorted(tmp_path.iterdir()) == sorted([path, alive, elsewhere])


def test_what_others_write_is_no_leftover_of_a_file(gone, tmp_path, monkeypatch):
    other = left(tmp_path / "b-a.json", gone, monkeypatch)
    write(tmp_path / "a.json", "file")
    assert other.exists()


def test_the_longest_name_can_be_written(tmp_path, gone, monkeypatch):
    path = tmp_path / ("ä" * 125 + ".json")
    dead = left(path, gone, monkeypatch)
    write(path, "file")
    assert list(tmp_path.iterdir()) == [path]
    assert not dead.exists()


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
