"""The image files of a data set as published: in folders and zips, in any encoding, read as images and as masks."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nnunetv2_guidino.errors import GuidinoError

MAX_DEPTH = 3  # folders below SRC: SRC may be the parent of what a zip unpacked into a folder of its own
WINDOW = 5  # pixels: wider than the slope of an edge that JPEG or resizing has softened


@dataclass(frozen=True)
class SourceFile:
    """A file below a folder or inside a zip. It holds no handle, so that it can be sent to another process."""

    root: Path
    name: str  # below root, with forward slashes

    def __str__(self) -> str:
        return f"{self.root}/{self.name}"

    @property
    def path(self) -> str:
        """What the layouts are matched with: `name`, led by that of the folder or zip itself."""
        return f"{self.root.name.removesuffix('.zip')}/{self.name}"

    def read(self) -> bytes:
        return (self.root / self.name).read_bytes() if self.root.is_dir() else _archive(self.root).read(self.name)


@lru_cache(maxsize=8)
def _archive(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def list_files(sources: Iterable[Path]) -> list[SourceFile]:
    """All files of the folders (to a depth of MAX_DEPTH) and zips. Hidden ones and macOS's shadow files are left out.

    Raises GuidinoError for what is neither folder nor zip, and for a zip with a member outside of itself.
    """
    files = []
    for source in (source.absolute() for source in sources):
        if source.is_dir():
            names = list(_walk(source))
        elif source.is_file():
            names = _members(source)
        else:
            raise GuidinoError(f"{source}: does not exist; expected a folder or a zip file")
        shown = (name for name in sorted(names) if not re.search(r"(^|/)(\.|__MACOSX/)", name))
        files += [SourceFile(source, name) for name in shown]
    return files


def _members(archive: Path) -> list[str]:
    try:
        names = [member.filename for member in _archive(archive).infolist() if not member.is_dir()]
    except zipfile.BadZipFile as error:
        raise GuidinoError(f"{archive}: expected a folder or a zip file ({error})") from None
    for name in names:
        if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
            raise GuidinoError(f"{archive}: holds {name!r}, a path that leaves the archive: refused")
    return names


def _walk(root: Path) -> Iterator[str]:
    for folder, subfolders, names in os.walk(root, followlinks=True):
        below = Path(folder).relative_to(root)
        if len(below.parts) >= MAX_DEPTH:
            subfolders.clear()
        yield from ((below / name).as_posix() for name in names)


def decode(file: SourceFile) -> Image.Image:
    """The picture, complete, upright and without transparency. Raises ValueError or OSError."""
    data = file.read()
    if not data:
        raise ValueError("is empty")
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise ValueError("is no image, or a damaged one") from None
    if image.format in ("TIFF", "GIF") and getattr(image, "n_frames", 1) > 1:
        raise ValueError("holds several pictures, expected one")
    # Pillow reads 16-bit colours as 8-bit ones: what the file holds is seen in its tiles only
    raw_mode = image.tile[0].args if image.tile else ""
    raw_mode = str(raw_mode[0] if isinstance(raw_mode, tuple) else raw_mode)
    if image.mode.startswith(("I", "F")) or (";16" in raw_mode and image.format != "BMP"):
        raise ValueError("has more than 8 bits per channel; window it to 8 bits first, as its meaning demands")
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image


def on_black(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA")).convert("RGB")


def is_grey(image: Image.Image) -> bool:
    if image.mode in ("1", "L"):
        return True
    red, green, blue = image.convert("RGB").split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def read_image(file: SourceFile, mode: str) -> Image.Image:
    """The image as "L" or "RGB", 8 bits per channel. Transparent pixels become black."""
    image = on_black(decode(file)).convert(mode)
    image.info.clear()  # no colour profile and no patient's or camera's data into the data set
    return image


def read_mask(file: SourceFile, values: tuple[int, ...] | None) -> tuple[np.ndarray, int]:
    """Labels (height, width), uint8, and the mask's range, which is the level of its foreground.

    Without `values` the levels 0…range are cut at half of the range: 0/1, 0/255, the two colours of a palette, and
    JPEG's noise around them. With `values`, label i + 1 is where the mask is values[i]; a palette's values are its
    indices.

    Raises ValueError for a third plateau, or for a value that is not named.
    """
    image = decode(file)
    if values is None:
        levels = np.asarray(on_black(image).convert("L"))
        top = _range(levels)
        return (levels > top / 2).astype(np.uint8), top
    if image.mode not in ("1", "L", "P"):
        image = on_black(image)
        if not is_grey(image):
            raise ValueError("is a coloured label map; expected grey values or a palette")
        image = image.convert("L")
    levels = np.asarray(image).astype(np.uint8)
    table = np.full(256, 255, np.uint8)
    table[[0, *values]] = range(len(values) + 1)
    labels = table[levels]
    if unnamed := np.unique(levels[labels == 255]).tolist():
        raise ValueError(f"holds the values {unnamed}, which --labels does not name")
    return labels, int(levels.max())


def _range(levels: np.ndarray) -> int:
    """The level of a two-level mask's foreground. Raises ValueError if the mask has a third plateau.

    JPEG and resizing also make levels between the two, but only near the ends of the range or on a slope: a 5 × 5
    window in the middle of the range that is flat to a 16th of it is neither; soft edges leave a few by chance. Label
    maps without noise are known by their few levels, each with an area of its own, wherever in the range they lie.
    """
    counts = np.bincount(levels.ravel(), minlength=256)
    used = np.flatnonzero(counts)
    top = int(used[-1])
    noisy = len(used) > 8
    plateaus = np.flatnonzero(counts >= levels.size / 100).tolist()
    if len(used) > 2 and (noisy or len(plateaus) <= 2) and min(levels.shape) >= WINDOW:
        minimum, maximum = _in_windows(np.minimum, levels), _in_windows(np.maximum, levels)
        brightest_area = int(minimum.max())
        if noisy and brightest_area > top / 2:  # JPEG overshoots beside edges
            top = brightest_area
        flat = (minimum >= top / 8) & (maximum <= top * 7 / 8) & (maximum - minimum <= top // 16)
        if np.count_nonzero(flat) > (levels.size / 2000 if noisy else 0):
            plateaus = [0, int(np.median(minimum[flat])), top]
        else:
            plateaus = []
    if len(plateaus) > 2:
        raise ValueError(
            f"is no two-level mask: it has areas at the levels {', '.join(map(str, plateaus))}. Is it a mask of "
            "several classes? `guidino convert folder --labels name=value,…` takes those"
        )
    return top


def _in_windows(extreme: np.ufunc, levels: np.ndarray) -> np.ndarray:
    """The minimum or maximum of each WINDOW × WINDOW window that lies within `levels`."""
    height, width = (length - WINDOW + 1 for length in levels.shape)
    rows = extreme.reduce([levels[start : start + height] for start in range(WINDOW)])
    return extreme.reduce([rows[:, start : start + width] for start in range(WINDOW)])
