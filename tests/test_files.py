"""Files and folders that are there whole or not at all, and what killed runs leave of them."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import (
    UNFINISHED,
    filled_folder,
    read_json,
    read_text,
    unfinished_beside,
    whole_file,
    whole_folder,
    write_text,
)


@pytest.fixture
def ended() -> int:
    """The number of a process that is no longer there."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_by(process: int, file, monkeypatch, machine: str | None = None):
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: process)
        if machine is not None:
            patch.setattr(socket, "gethostname", lambda: machine)
        leftover = unfinished_beside(file)
    leftover.write_text("half")
    return leftover


def test_what_a_killed_run_left_is_removed_by_the_next(ended, tmp_path, monkeypatch):
    file = tmp_path / "plans [1].json"
    leftover = left_by(ended, file, monkeypatch)
    write_text(file, "whole")
    assert not leftover.exists()
    assert file.read_text() == "whole"


def test_what_is_left_of_another_file_stays(ended, tmp_path, monkeypatch):
    other = left_by(ended, tmp_path / "b-a.json", monkeypatch)
    write_text(tmp_path / "c.json", "whole")
    assert other.exists()


def test_the_longest_name_can_be_written(ended, tmp_path, monkeypatch):
    file = tmp_path / ("ä" * 125 + ".json")
    leftover = left_by(ended, file, monkeypatch)
    write_text(file, "whole")
    assert list(tmp_path.iterdir()) == [file]
    assert not leftover.exists()


def test_what_may_never_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(GuidinoError, match=r"a\.json is no regular file"):
        read_json(tmp_path / "a.json", dict)
    with pytest.raises(GuidinoError, match="/dev/zero is no regular file"):
        read_text(Path("/dev/zero"))


def test_what_another_machine_is_writing_is_left_alone(ended, tmp_path, monkeypatch):
    """Folds of one model may start on several machines, which know nothing of each other's processes."""
    file = tmp_path / "dataset.json"
    being_written = left_by(ended, file, monkeypatch, machine="another")
    old = left_by(ended, file, monkeypatch, machine="a third")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    write_text(file, "whole")
    assert being_written.exists()
    assert not old.exists()


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
    assert not list(tmp_path.glob(f"{UNFINISHED}*"))


@pytest.mark.parametrize("written", [whole_folder, filled_folder])
def test_no_folders_are_left_where_nothing_came_into_them(written, tmp_path):
    with pytest.raises(ValueError, match="failed"), written(tmp_path / "a" / "b" / "c"):
        raise ValueError("failed")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").mkdir()
    with pytest.raises(ValueError, match="failed"), written(tmp_path / "kept" / "b"):
        raise ValueError("failed")
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]
