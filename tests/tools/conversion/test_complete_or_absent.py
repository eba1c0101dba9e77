"""A data set appears complete or not at all, and existing files stay."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pairs import convert, draw_image, draw_mask, make_pairs, names_in, save
from PIL import Image


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_existing_target(source: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert("kvasir-seg", source) == 0
    before = snapshot(nnunet.parent)
    assert convert("kvasir-seg", source) == 1
    assert "exists; pass --overwrite" in capsys.readouterr().err
    (source / "images" / "cju4.jpg").write_bytes(b"")
    assert convert("kvasir-seg", source, "--overwrite") == 1
    assert snapshot(nnunet.parent) == before
    for file in source.rglob("cju4.*"):
        file.unlink()
    assert convert("kvasir-seg", source, "--overwrite", "--no-split") == 0
    assert len(names_in(nnunet / "Dataset501_KvasirSEG" / "labelsTr")) == 9
    assert names_in(nnunet) == ["Dataset501_KvasirSEG"]
    assert not list(nnunet.parent.rglob("splits_final.json")), "the old split must not outlive its data set"


def test_id_of_another_data_set(source: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (nnunet.parent / "nnUNet_preprocessed" / "Dataset501_Other").mkdir(parents=True)
    assert convert("kvasir-seg", source) == 1
    assert "Dataset501_Other: has the id 501 already" in capsys.readouterr().err


def test_other_preprocessed_splits_are_kept(source: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = nnunet.parent / "nnUNet_preprocessed" / "Dataset501_KvasirSEG" / "splits_final.json"
    splits.parent.mkdir(parents=True)
    splits.write_text("[]")
    assert convert("kvasir-seg", source) == 1
    assert "other splits" in capsys.readouterr().err
    assert splits.read_text() == "[]"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_disk_full_or_read_only(
    error: int, source: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("kvasir-seg", source) == 0
    before = snapshot(nnunet.parent)

    def fail(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(Image.Image, "save", fail)
    assert convert("kvasir-seg", source, "--overwrite") == 1
    assert os.strerror(error) in capsys.readouterr().err
    assert snapshot(nnunet.parent) == before
    assert names_in(nnunet) == ["Dataset501_KvasirSEG"]


def test_target_below_a_file(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert convert("kvasir-seg", source, "-o", tmp_path / "file" / "raw") == 1
    assert "cannot be written" in capsys.readouterr().err


def test_failed_rename_brings_the_old_data_set_back(
    source: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert convert("kvasir-seg", source) == 0
    before = snapshot(nnunet)
    rename = Path.rename

    def fail_once(self: Path, target: Path) -> Path:
        if ".writing-" in str(self) and self.parent.name == "new":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    assert convert("kvasir-seg", source, "--overwrite") == 1
    assert snapshot(nnunet) == before


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(child) for child in listed.split()]


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_kill_in_the_middle(kill: signal.Signals, tmp_path: Path, nnunet: Path) -> None:
    source = make_pairs(tmp_path / "source", ["a"])
    save(draw_image((600, 500)), source / "images" / "a.jpg")
    save(draw_mask((600, 500)), source / "masks" / "a.png")
    for i in range(100):
        (source / "images" / f"b{i}.jpg").hardlink_to(source / "images" / "a.jpg")
        (source / "masks" / f"b{i}.png").hardlink_to(source / "masks" / "a.png")
    command = [sys.executable, "-m", "nnunetv2_guidino.cli", "convert", "folder", str(source), "-np", "2"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.DEVNULL,
        # a shell that runs the tests in the background has them, and so this process, ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 300  # reached on failure only
    while not list(nnunet.glob(".writing-*/new/*/imagesTr/*.png")):
        assert process.poll() is None, "the conversion ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = children(process.pid)
    process.send_signal(kill)
    assert process.wait(timeout=300) in (-kill, 128 + kill)
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "workers outlive the command"
        time.sleep(0.05)
    assert not (nnunet / "Dataset500_source").exists()
    if kill != signal.SIGKILL:  # no process can clean up after a kill
        assert names_in(nnunet) == []
    for file in source.glob("*/b*"):
        file.unlink()
    assert convert("folder", source) == 0
    assert names_in(nnunet) == ["Dataset500_source"], "the next conversion removes what a kill has left"
    assert names_in(nnunet / "Dataset500_source" / "labelsTr") == ["a.png"]
