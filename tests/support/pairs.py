"""Small image and mask pairs to convert."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from nnunetv2_guidino.cli import main
from nnunetv2_guidino.tools.conversion.sources import SourceFile


def draw_mask(size: tuple[int, int] = (40, 30), level: int = 255) -> Image.Image:
    """An ellipse of `level` on 0; `size` is (width, height)."""
    mask = Image.new("L", size)
    width, height = size
    ImageDraw.Draw(mask).ellipse((width // 5, height // 4, width * 3 // 4, height * 4 // 5), fill=level)
    return mask


def thin_lines(seed: int, width: int = 7) -> tuple[Image.Image, np.ndarray]:
    """Random lines on 1024², reduced to 256² with soft edges, and where at least half of a pixel is line."""
    random = np.random.default_rng(seed)
    mask = Image.new("L", (1024, 1024))
    for _ in range(random.integers(3, 60)):
        ImageDraw.Draw(mask).line(random.integers(0, 1024, 4).tolist(), fill=255, width=width)
    soft = mask.resize((256, 256), Image.Resampling.BILINEAR)
    return soft, np.asarray(soft) > 127


def draw_image(size: tuple[int, int] = (40, 30), seed: int = 0, grey: bool = False) -> Image.Image:
    shape = (size[1], size[0]) if grey else (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def save(image: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


def make_pairs(folder: Path, names: list[str], mask_ending: str = ".png") -> Path:
    """images/NAME.jpg and masks/NAME.png as in Kvasir-SEG."""
    for seed, name in enumerate(names):
        save(draw_image(seed=seed), folder / "images" / f"{name}.jpg")
        save(draw_mask(), folder / "masks" / f"{name}{mask_ending}")
    return folder


def convert(*args: object) -> int:
    """`guidino convert …` in this process, without workers unless the arguments ask for them."""
    arguments = [str(arg) for arg in args]
    return main(["convert", *arguments, *(() if "-np" in arguments else ("-np", "1"))])


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stored(image: Image.Image, tmp_path: Path, ending: str = ".png", **options: object) -> SourceFile:
    """The image as `file` with an ending in a folder."""
    image.save(tmp_path / f"file{ending}", **options)
    return SourceFile(tmp_path, f"file{ending}")


def cases_in(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.iterdir())


def read_splits(target: Path) -> list[dict[str, list[str]]]:
    """splits_final.json, which must be the same where nnU-Net reads it."""
    preprocessed = target.parents[1] / "nnUNet_preprocessed" / target.name / "splits_final.json"
    assert preprocessed.read_bytes() == (target / "splits_final.json").read_bytes()
    return json.loads(preprocessed.read_text())


def make_isic(folder: Path, parts: dict[str, int]) -> Path:
    """The folders of ISIC 2017 with so many cases in each part."""
    numbers = itertools.count()
    for part, count in parts.items():
        data, masks = folder / f"ISIC-2017_{part}_Data", folder / f"ISIC-2017_{part}_Part1_GroundTruth"
        for number in itertools.islice(numbers, count):
            save(draw_image(seed=number), data / f"ISIC_{number:07}.jpg")
            save(draw_image(), data / f"ISIC_{number:07}_superpixels.png")
            save(draw_mask(), masks / f"ISIC_{number:07}_segmentation.png")
        (data / f"ISIC-2017_{part}_Data_metadata.csv").write_text("image_id,age_approximate,sex\n")
    return folder


def make_tn3k(
    folder: Path, trainval: list[str], test: list[str], grey: bool = True, size: tuple[int, int] = (16, 12)
) -> Path:
    """One picture and one mask under many names, which is what makes the official 3,493 cases affordable."""
    save(draw_image(size, grey=grey), folder / "image.jpg")
    save(draw_mask(size), folder / "mask.png")
    for part, names in (("trainval", trainval), ("test", test)):
        for kind, ending in (("image", "jpg"), ("mask", "png")):
            (folder / f"{part}-{kind}").mkdir()
            for name in names:
                (folder / f"{part}-{kind}" / f"{name}.{ending}").hardlink_to(folder / f"{kind}.{ending}")
    return folder


def write_folds(folder: Path, count: int) -> None:
    for k in range(5):
        fold = {role: [i for i in range(count) if (i % 5 == k) == (role == "val")] for role in ("train", "val")}
        (folder / f"tn3k-trainval-fold{k}.json").write_text(json.dumps(fold))
