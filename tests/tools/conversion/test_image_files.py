"""Read images in every mode from folders and zips, and refuse unusable files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pairs import draw_image, draw_mask, stored
from PIL import Image

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.conversion.image_files import as_image, decode
from nnunetv2_guidino.tools.conversion.sources import SourceFile, list_files


def read_image(file: SourceFile, mode: str) -> Image.Image:
    return as_image(decode(file).upright, mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_images_of_any_mode(mode: str, tmp_path: Path) -> None:
    grey = draw_mask()
    file = stored(grey.convert(mode), tmp_path, ".tif" if mode == "CMYK" else ".png")
    np.testing.assert_array_equal(np.asarray(read_image(file, "RGB")), np.asarray(grey.convert("RGB")))
    np.testing.assert_array_equal(np.asarray(read_image(file, "L")), np.asarray(grey))


def test_transparent_pixels_become_black(tmp_path: Path) -> None:
    image = draw_image().convert("RGBA")
    image.putalpha(draw_mask())
    expected = np.asarray(image)[..., :3] * (np.asarray(draw_mask()) > 0)[..., None]
    np.testing.assert_array_equal(np.asarray(read_image(stored(image, tmp_path), "RGB")), expected)


def test_exif_rotation_is_applied_and_metadata_dropped(tmp_path: Path) -> None:
    image = draw_image((40, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90°
    file = stored(image, tmp_path, ".png", exif=exif, icc_profile=b"profile")
    read = read_image(file, "RGB")
    np.testing.assert_array_equal(np.asarray(read), np.rot90(np.asarray(image), -1))
    assert not read.info


def sixteen_bit_rgb() -> bytes:
    """Pillow cannot write such a PNG, and reads it as 8 bits."""
    import cv2

    return cv2.imencode(".png", np.full((30, 40, 3), 4000, np.uint16))[1].tobytes()


def encoded(image: Image.Image, ending: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, ending, **options)
    return buffer.getvalue()


REFUSED = {
    "16-bit grey": (lambda: encoded(Image.fromarray(np.full((30, 40), 4000, np.uint16)), "PNG"), "8 bits"),
    "16-bit RGB": (sixteen_bit_rgb, "8 bits"),
    "floating point": (lambda: encoded(Image.new("F", (40, 30)), "TIFF"), "8 bits"),
    "several pages": (
        lambda: encoded(draw_mask(), "TIFF", save_all=True, append_images=[draw_mask()]),
        "several pictures",
    ),
    "truncated JPEG": (lambda: encoded(draw_image((200, 200)), "JPEG")[:-3000], "truncated"),
    "truncated PNG": (lambda: encoded(draw_image(), "PNG")[:-300], "truncated"),
    "empty": (lambda: b"", "empty"),
    "text": (lambda: b"Page not found", "no image"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_unusable_files_are_refused(what: str, tmp_path: Path) -> None:
    contents, message = REFUSED[what]
    (tmp_path / "file").write_bytes(contents())
    with pytest.raises((ValueError, OSError), match=message):
        read_image(SourceFile(tmp_path, "file"), "RGB")


def make_zip(file: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return file


@pytest.mark.parametrize("name", ["../x", "images/../../x.jpg", "/etc/x", "..\\x"])
def test_zip_that_leaves_itself_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(GuidinoError, match=r"a\.zip.*leaves the archive"):
        list_files([make_zip(tmp_path / "a.zip", ["images/a.jpg", name])])


def test_folders_and_zips_are_listed_without_hidden_files(tmp_path: Path) -> None:
    names = ["images/a.jpg", "images/._a.jpg", "__MACOSX/images/a.jpg", ".DS_Store"]
    archive = make_zip(tmp_path / "a.zip", names)
    zipfile.ZipFile(archive).extractall(tmp_path / "folder")
    for source in (archive, tmp_path / "folder"):
        (file,) = list_files([source])
        assert file.name == "images/a.jpg"
        assert file.read() == b"x"


def test_what_is_neither_folder_nor_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"x")
    for name in ("a.tar", "nothing"):
        with pytest.raises(GuidinoError, match="expected a folder or a zip file"):
            list_files([tmp_path / name])
