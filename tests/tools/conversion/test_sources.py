"""Refuse files with another content than their names say, and too large files."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from pairs import convert, draw_mask, make_pairs

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.conversion import sources
from nnunetv2_guidino.tools.conversion.image_files import decode
from nnunetv2_guidino.tools.conversion.sources import SourceFile, list_files

Capture = pytest.CaptureFixture[str]


def test_formats_are_taken_by_list(source: Path, nnunet: Path, capsys: Capture) -> None:
    """Pillow would start Ghostscript for an EPS with any name."""
    file = source / "images" / "cju3.jpg"
    file.unlink()
    draw_mask().save(file.with_suffix(".png"), "EPS")
    assert convert("kvasir-seg", source) == 1
    assert "cju3.png: is no image of the kinds PNG, JPEG, BMP, TIFF, GIF" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_regular_files_only(kind: str, source: Path, nnunet: Path, capsys: Capture) -> None:
    file = source / "images" / "cju3.jpg"
    file.unlink()
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        file.mkdir()
    assert convert("kvasir-seg", source) == 1
    expected = "cju3.png: is the mask of no image" if kind == "folder" else "cju3.jpg: is no regular file"
    assert expected in capsys.readouterr().err


def test_a_fifo_is_no_source(tmp_path: Path, nnunet: Path, capsys: Capture) -> None:
    os.mkfifo(tmp_path / "a.zip")
    assert convert("kvasir-seg", tmp_path / "a.zip") == 1
    assert "a.zip: is neither; expected a folder or a zip file" in capsys.readouterr().err


def test_files_have_a_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/a.png", bytes(2**20 + 1))
    (tmp_path / "folder").mkdir()
    with (tmp_path / "folder/a.png").open("wb") as stream:
        stream.truncate(2**40)  # sparse
    for file in (SourceFile(tmp_path / "a.zip", "images/a.png"), SourceFile(tmp_path / "folder", "a.png")):
        with pytest.raises(ValueError, match="MiB; expected at most 1"):
            file.read()


def test_a_member_longer_than_its_header_says(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2**20))
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace((2**20).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(ValueError, match="cannot be unpacked"):
        SourceFile(tmp_path / "a.zip", "a.png").read()


def test_encrypted_and_damaged_members(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", b"picture")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    (tmp_path / "damaged.zip").write_bytes(data.replace(b"picture", b"pictura"))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1  # the flag for encryption
    (tmp_path / "encrypted.zip").write_bytes(data)
    for name in ("damaged", "encrypted"):
        with pytest.raises(ValueError, match="cannot be unpacked"):
            SourceFile(tmp_path / f"{name}.zip", "a.png").read()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><title>Sign in</title>", "a web page"),
    ],
)
def test_what_a_download_may_leave(contents: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(contents)
    with pytest.raises(ValueError, match=message):
        decode(SourceFile(tmp_path, "a.png"))


def test_a_folder_that_cannot_be_opened_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_pairs(tmp_path / "set", ["a"])
    scandir = os.scandir

    def refuse(path: object) -> object:
        if str(path).endswith("masks"):
            raise PermissionError(13, os.strerror(13), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(GuidinoError, match="masks cannot be read: Permission denied"):
        list_files([source])


def test_a_file_that_changes_after_it_was_checked(
    source: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from nnunetv2_guidino.tools.conversion import conversion as convert_module

    write = convert_module.write_dataset

    def change_and_write(*arguments: object) -> None:
        (source / "masks" / "cju3.png").write_bytes(b"")
        write(*arguments)

    monkeypatch.setattr(convert_module, "write_dataset", change_and_write)
    assert convert("kvasir-seg", source) == 1
    assert "cju3.jpg: has changed since it was checked: " in capsys.readouterr().err
    assert list(nnunet.iterdir()) == []
