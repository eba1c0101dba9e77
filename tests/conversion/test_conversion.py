"""What a conversion writes, what it refuses, and that it leaves nothing half-made."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pairs import convert, draw_image, draw_mask, make_pairs, save
from PIL import Image

from nnunetv2_guidino.conversion import workers


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read_mapping(target: Path) -> list[dict[str, str]]:
    with (target / "mapping.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_output(source: Path, nnunet: Path) -> None:
    assert convert("kvasir-seg", source, "--no-split") == 0
    target = nnunet / "Dataset501_KvasirSEG"
    assert names_in(nnunet) == [target.name]
    assert names_in(target) == ["dataset.json", "imagesTr", "labelsTr", "mapping.csv"]
    assert names_in(target / "imagesTr") == [f"cju{i}_0000.png" for i in range(10)]
    assert names_in(target / "labelsTr") == [f"cju{i}.png" for i in range(10)]
    with Image.open(source / "images" / "cju3.jpg") as original, Image.open(target / "imagesTr/cju3_0000.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(original))
    with Image.open(target / "labelsTr" / "cju3.png") as labels:
        np.testing.assert_array_equal(np.asarray(labels), np.asarray(draw_mask()) // 255)

    description = json.loads((target / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert description["labels"] == {"background": 0, "polyp": 1}
    assert (description["numTraining"], description["file_ending"]) == (10, ".png")
    assert all(description[key] for key in ("reference", "licence", "release", "description"))
    rows = read_mapping(target)
    assert [row["case"] for row in rows] == [f"cju{i}" for i in range(10)]
    assert float(rows[0]["foreground_fraction"]) == pytest.approx(np.mean(np.asarray(draw_mask()) > 0), abs=1e-6)
    del rows[0]["foreground_fraction"]
    assert rows[0] == {
        "case": "cju0",
        "original_image": "Kvasir-SEG/images/cju0.jpg",
        "original_mask": "Kvasir-SEG/masks/cju0.png",
        "split": "trainval",
        "width": "40",
        "height": "30",
    }


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_write_the_same(method: str, source: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get_context = workers.multiprocessing.get_context
    monkeypatch.setattr(workers.multiprocessing, "get_context", lambda _: get_context(method))
    assert convert("kvasir-seg", source) == 0
    assert convert("kvasir-seg", source, "-np", 2, "-o", nnunet.parent / "other") == 0
    written, by_workers = (
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in (nnunet, nnunet.parent / "other")
    )
    assert written == by_workers


def test_source_may_be_parent_images_in_depth_or_zip(source: Path, nnunet: Path) -> None:
    nested = source.parent / "a" / "b"
    nested.mkdir(parents=True)
    archive = source.parent / "kvasir-seg.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in source.rglob("*.*"):
            file.write(path, path.relative_to(source.parent))
    source = source.rename(nested / source.name)
    for src in (archive, source, nested, nested.parent):
        assert convert("kvasir-seg", src, "--overwrite", "--no-split") == 0
        assert len(names_in(nnunet / "Dataset501_KvasirSEG" / "labelsTr")) == 10


def test_names_are_kept(tmp_path: Path, nnunet: Path) -> None:
    names = ["with space", "brackets [1] (2)", "größe_übel", "点", "dots.in.name", "per%cent{0}"]
    source = make_pairs(tmp_path / "source", names)
    decomposed = source / "masks" / (unicodedata.normalize("NFD", "größe_übel") + ".png")
    (source / "masks" / "größe_übel.png").rename(decomposed)  # as macOS writes it
    assert convert("folder", source) == 0
    assert {row["case"] for row in read_mapping(nnunet / "Dataset500_source")} == set(names)
    assert names_in(nnunet / "Dataset500_source" / "labelsTr") == sorted(f"{name}.png" for name in names)


def test_ignored_files_are_listed_once(source: Path, nnunet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "kavsir_bboxes.json").write_text("{}")
    (source / ".DS_Store").write_text("")
    assert convert("kvasir-seg", source) == 0
    error = capsys.readouterr().err
    assert error.count("kavsir_bboxes.json") == 1
    assert ".DS_Store" not in error
    assert "warning: KvasirSEG: the number of cases is 10 instead of 1,000 (-990)" in error


def test_resize(source: Path, nnunet: Path) -> None:
    assert convert("kvasir-seg", source, "--resize", 16, 20, "--no-split") == 0
    target = nnunet / "Dataset501_KvasirSEG"
    with Image.open(target / "imagesTr" / "cju0_0000.png") as image, Image.open(target / "labelsTr/cju0.png") as labels:
        assert image.size == labels.size == (20, 16)
        assert np.unique(np.asarray(labels)).tolist() == [0, 1]
    row = read_mapping(target)[0]
    assert [row[key] for key in ("width", "height", "original_width", "original_height")] == ["20", "16", "40", "30"]
    assert "Resized to 16 × 20" in json.loads((target / "dataset.json").read_text())["description"]


def test_preview(source: Path, nnunet: Path, tmp_path: Path) -> None:
    assert convert("kvasir-seg", source, "--preview", tmp_path / "three.png") == 0
    with Image.open(tmp_path / "three.png") as sheet:
        yellow = np.all(np.asarray(sheet) == (255, 255, 0), axis=-1)
        assert [column.any() for column in np.hsplit(yellow, 3)] == [True, True, True]


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
    assert "could not be written" in capsys.readouterr().err


def test_failed_rename_brings_the_old_data_set_back(
    source: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert convert("kvasir-seg", source) == 0
    before = snapshot(nnunet)
    rename = Path.rename

    def fail_once(self: Path, target: Path) -> Path:
        if ".incomplete-" in self.name:
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
    while not list(nnunet.glob(".*/imagesTr/*.png")):
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
    if kill != signal.SIGKILL:  # which nobody can tidy up after
        assert names_in(nnunet) == []
    for file in source.glob("*/b*"):
        file.unlink()
    assert convert("folder", source) == 0
    assert names_in(nnunet / "Dataset500_source" / "labelsTr") == ["a.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "1000"], "ids are 1 to 999"),
        (["-np", "0"], "numbers from 1 on"),
        (["--resize", "0", "5"], "numbers from 1 on"),
        (["--preview", "a.jpg"], "ends in .png"),
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
