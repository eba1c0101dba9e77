"""Refuse image files that are cut short or damaged, in every format that nnU-Net reads."""

import os
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES
from skimage import io

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.images import check_whole, stored_pixels
from nnunetv2_guidino.tools.evaluation.reading import read

VOLUME = (np.random.default_rng(0).random((12, 40, 50)) < 0.5).astype(np.uint8)
PICTURE = VOLUME[0]


def write(folder: Path, name: str) -> Path:
    """NAME.ENDING, or NAME.compressed.ENDING."""
    file = folder / name
    ending = file.suffix
    if ending in (".png", ".bmp"):
        io.imsave(file, PICTURE, check_contrast=False)
    elif ending in (".tif", ".tiff"):
        tifffile.imwrite(
            file, PICTURE if "picture" in name else VOLUME, compression="zlib" if "compressed" in name else None
        )
    else:
        sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(file), "compressed" in name)
    return file


NAMES = [
    "a.nii.gz",
    "a.nii",
    "a.mha",
    "a.compressed.mha",
    "a.nrrd",
    "a.compressed.nrrd",
    "a.png",
    "a.bmp",
    "picture.tif",
    "picture.compressed.tif",
    "a.tif",
    "a.compressed.tiff",
]


def readers(file: Path) -> list[type]:
    """Return nnU-Net's readers that can read the whole file."""
    found = []
    for reader in LIST_OF_IO_CLASSES:
        if file.name.endswith(tuple(reader.supported_file_endings)):
            try:
                read(file, reader, "read_seg")
            except GuidinoError:
                continue
            found.append(reader)
    return found


def test_every_checked_format_of_nnunet_is_here():
    """All but GIPL, which nnU-Net reads unchecked."""
    endings = {ending for reader in LIST_OF_IO_CLASSES for ending in reader.supported_file_endings} - {".gipl"}
    assert {next(e for e in sorted(endings, key=len)[::-1] if name.endswith(e)) for name in NAMES} == endings


@pytest.mark.parametrize("name", [*NAMES, "a.gipl"])
def test_whole_files_pass(name, tmp_path):
    file = write(tmp_path, name)
    check_whole(file)
    assert stored_pixels(file) == (
        PICTURE.size if file.suffix in (".png", ".bmp") or "picture" in name else VOLUME.size
    )
    assert readers(file)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0, 0.2, 0.5, 0.9, 0.97, 0.99])
def test_cut_files_are_refused_by_name(name, share, tmp_path):
    file = write(tmp_path, name)
    with_readers = readers(file)
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    for reader in with_readers:
        with pytest.raises(GuidinoError, match=rf"{re.escape(str(file))} cannot be read: ."):
            read(file, reader, "read_seg")
        with pytest.raises(GuidinoError, match=rf"{re.escape(str(file))} cannot be read: ."):
            read(file, reader, "read_images")


CHECKED = ["a.nii.gz", "a.compressed.mha", "a.compressed.nrrd", "a.png", "picture.compressed.tif", "a.compressed.tiff"]


@pytest.mark.parametrize("name", CHECKED)
def test_files_with_a_check_sum_are_refused_when_damaged(name, tmp_path):
    file = write(tmp_path, name)
    with_readers = readers(file)
    data = bytearray(file.read_bytes())
    for i in range(20):
        data[len(data) // 2 + i] ^= 255
    file.write_bytes(data)
    for reader in with_readers:
        with pytest.raises(GuidinoError, match="cannot be read"):
            read(file, reader, "read_seg")


def test_a_circle_of_pages_comes_to_an_end(tmp_path):
    file = write(tmp_path, "a.compressed.tiff")
    data = bytearray(file.read_bytes())
    first = int.from_bytes(data[4:8], "little")
    following = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    data[following : following + 4] = first.to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises(GuidinoError, match="in a circle"):
        check_whole(file)


SAID = {
    "empty": (b"", "it is empty"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "page": (b"<!DOCTYPE html><html>Sign in</html>", "it is a web page"),
}


@pytest.mark.parametrize("what", SAID)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd", ".png", ".tif"])
def test_what_is_no_image_is_named(what, ending, tmp_path):
    content, message = SAID[what]
    file = tmp_path / f"a{ending}"
    file.write_bytes(content)
    with pytest.raises(GuidinoError, match=message):
        check_whole(file)


def test_no_other_decoder_is_started(tmp_path):
    """Pillow opens a PostScript file of any name, with Ghostscript."""
    file = tmp_path / "a.png"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(GuidinoError, match="none of PNG, BMP, TIFF, JPEG"):
        check_whole(file)


@pytest.mark.parametrize("ending", [".nii.gz", ".png"])
def test_pipes_and_folders_are_not_opened(ending, tmp_path):
    os.mkfifo(tmp_path / f"pipe{ending}")
    (tmp_path / f"folder{ending}").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(GuidinoError, match="it is no regular file"):
            check_whole(tmp_path / f"{name}{ending}")
    with pytest.raises(GuidinoError, match="does not exist"):
        check_whole(tmp_path / f"nothing{ending}")


def test_plain_nifti_with_the_name_of_a_compressed_one(tmp_path):
    """ITK reads the file by its content, and so does the check."""
    write(tmp_path, "a.nii").rename(tmp_path / "a.nii.gz")
    check_whole(tmp_path / "a.nii.gz")
    data = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(data[:-1])
    with pytest.raises(GuidinoError, match="23,999 of 24,000 bytes of pixels"):
        check_whole(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_types_and_versions_of_nifti(kind, dtype, tmp_path):
    nibabel.save(kind(VOLUME.astype(dtype), np.eye(4)), tmp_path / "a.nii.gz")
    check_whole(tmp_path / "a.nii.gz")
    assert stored_pixels(tmp_path / "a.nii.gz") == VOLUME.size
