"""Refuse faulty sources and options before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pairs import convert, draw_image, draw_mask, save
from PIL import Image


def truncate(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def third_plateau(mask: Path) -> None:
    with Image.open(mask) as image:
        levels = np.array(image)
    levels[:8, :10] = 128
    Image.fromarray(levels).save(mask)


MUTATIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing mask": (lambda src: (src / "masks/cju3.png").unlink(), "images/cju3.jpg: has no mask"),
    "extra mask": (lambda src: save(draw_mask(), src / "masks/x.png"), "masks/x.png: is the mask of no image"),
    "swapped sizes": (lambda src: save(draw_mask((30, 40)), src / "masks/cju3.png"), "image 40×30, mask 30×40"),
    "truncated JPEG": (lambda src: truncate(src / "images/cju3.jpg", 900), "cju3.jpg: image file is truncated"),
    "empty image": (lambda src: truncate(src / "images/cju3.jpg", 0), "cju3.jpg: is empty"),
    "empty mask": (lambda src: truncate(src / "masks/cju3.png", 0), "cju3.png: is empty"),
    "text for image": (lambda src: (src / "images/cju3.jpg").write_text("not found"), "cju3.jpg: is no image"),
    "third plateau": (lambda src: third_plateau(src / "masks/cju3.png"), "cju3.png: is no two-level mask"),
    "16-bit image": (
        lambda src: (
            (src / "images/cju3.jpg").unlink(),
            save(Image.fromarray(np.full((30, 40), 999, np.uint16)), src / "images/cju3.png"),
        ),
        "cju3.png: has more than 8 bits",
    ),
    "0/1 among 0/255": (
        lambda src: save(draw_mask(level=1), src / "masks/cju3.png"),
        "cju3.png: its levels end at 1",
    ),
    "twice": (lambda src: save(draw_image(), src / "images/cju3.png"), "cju3.png: has the same name as"),
    "no images": (lambda src: [file.unlink() for file in src.rglob("*.*")], "no images found; expected images/ID.jpg"),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_bad_source_is_refused_by_name(
    mutation: str, source: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mutate, message = MUTATIONS[mutation]
    mutate(source)
    assert convert("kvasir-seg", source, "--no-split") == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not nnunet.exists()


def test_all_problems_are_reported(source: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = ["missing mask", "extra mask", "empty image"]
    (source / "images" / "cju4.jpg").write_bytes(b"")
    (source / "masks" / "cju5.png").unlink()
    MUTATIONS["extra mask"][0](source)
    assert convert("kvasir-seg", source) == 1
    error = capsys.readouterr().err
    assert all(f"{name}" in error for name in ("cju4.jpg: is empty", "cju5.jpg: has no mask", "x.png: is the mask of"))
    assert f"problems: {len(problems)}" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "1000"], "ids are 1 to 999"),
        (["-np", "0"], "numbers from 1 on"),
        (["--resize", "0", "5"], "numbers from 1 on"),
        (["--preview", "a.jpg"], "ends in .png"),
        (["--preview", "/nowhere/a.png"], "there is no folder /nowhere"),
        (["--cut", "nan"], "--cut nan: expected a level"),
        (["--resize", "1000000", "1000000"], "--resize 1000000 1000000: expected at most"),
        (["--split", "x" * 300], "File name too long"),
        (["-o", "x" * 300], "File name too long"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, source: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("kvasir-seg", source, *arguments) == 1
    assert message in capsys.readouterr().err


def test_no_target(source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert convert("kvasir-seg", source) == 1
    assert "nnUNet_raw" in capsys.readouterr().err
