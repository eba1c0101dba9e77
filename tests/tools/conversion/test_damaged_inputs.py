"""With any content of the files, a conversion ends in success or in one clear line, and leaves nothing unfinished."""

from __future__ import annotations

import io
import json
import random
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pairs import convert, draw_image, draw_mask
from PIL import Image

from nnunetv2_guidino.tools.conversion import sources

LABELS = ["a", "a=1", "a=1,b=255", "background=255,a=0", "a=#ff0000", "background=#ffffff,a=#000000", "ignore=255,a=1"]
SPLITS = [
    *(json.dumps(content).encode() for content in ([], None, 5, "x", [None], {"train": 5}, {"train": ["a0"]})),
    b'[{"train": ["a0"], "val": ["a1"]}]',
    b'{"a\\ud800": []}',
    b'{"train": ["a\\ud800"]}',
    b"\xff\xfe",
    b"[" * 100_000,
    b"",
]


def encode(image: Image.Image, mode: str, draw: random.Random) -> bytes:
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    stream = io.BytesIO()
    exif = Image.Exif()
    if draw.random() < 0.1:
        exif[0x0112] = draw.choice([1, 3, 6, 8])
    formats = ["PNG", "TIFF"] if mode in ("I;16", "LA", "RGBA") else ["PNG", "JPEG", "TIFF", "GIF", "BMP"]
    if mode == "P" or mode == "1":
        formats = ["PNG", "GIF", "BMP"]
    (image if mode == "I;16" else image.convert(mode)).save(stream, draw.choice(formats), exif=exif)
    return stream.getvalue()


def spoil(data: bytes, draw: random.Random) -> bytes:
    """Cut the data short, or change a few bytes, most of them in the header."""
    if draw.random() < 0.4:
        return data[: draw.randrange(len(data))]
    spoiled = bytearray(data)
    for _ in range(draw.choice([1, 2, 8])):
        spoiled[draw.randrange(min(len(data), draw.choice([60, 300, 10**6])))] = draw.randrange(256)
    return bytes(spoiled)


def make_source(folder: Path, draw: random.Random) -> Path:
    kinds = (("images", draw_image, ["L", "RGB", "RGBA"]), ("masks", draw_mask, ["1", "L", "P", "LA", "I;16"]))
    for kind, drawn, modes in kinds:
        (folder / kind).mkdir(parents=True)
        for name in ("a0", "a1"):
            data = encode(drawn((40, 30)), draw.choice(modes), draw)
            (folder / kind / f"{name}.png").write_bytes(spoil(data, draw) if draw.random() < 0.1 else data)
    if draw.random() < 0.7:
        return folder
    archive = Path(shutil.make_archive(str(folder), "zip", folder.parent, folder.name))
    if draw.random() < 0.5:
        archive.write_bytes(spoil(archive.read_bytes(), draw))
    return archive


def random_options(folder: Path, draw: random.Random) -> list[object]:
    options: list[object] = ["--overwrite"]
    for chance, given in (
        (0.2, ["--labels", draw.choice(LABELS)]),
        (0.2, ["--cut", draw.choice([0, 127, 300])]),
        (0.3, ["--exif", draw.choice(["stored", "upright"])]),
        (0.2, ["--resize", 8, 9]),
    ):
        if draw.random() < chance:
            options += given
    if draw.random() < 0.2:
        split = folder / draw.choice(["split.json", "train.txt"])
        split.write_bytes(draw.choice(SPLITS))
        options += ["--split", split]
    return options


@pytest.mark.parametrize("seed", range(10))
def test_damaged_inputs(seed: int, tmp_path: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(seed)
    for number in range(12):
        source = make_source(tmp_path / str(number) / "set", draw)
        sources._archive.cache_clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of unusual metadata
            status = convert("folder", source, *random_options(tmp_path, draw))
        error = capsys.readouterr().err
        assert status == 0 or error.splitlines()[-1].startswith("guidino convert: error: "), error
        assert not list(nnunet.glob(".*")), "no unfinished folder stays"


def test_zips_are_damaged_too(tmp_path: Path) -> None:
    """The seeds above damage zips and folders."""
    draw = random.Random(1)
    kinds = {zipfile.is_zipfile(make_source(tmp_path / str(number) / "set", draw)) for number in range(40)}
    assert kinds == {True, False}
