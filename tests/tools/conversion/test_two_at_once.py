"""Test two conversions at the same time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pairs import convert, make_pairs, names_in

from nnunetv2_guidino.tools.conversion import conversion as convert_module

Capture = pytest.CaptureFixture[str]


@contextmanager
def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: object) -> Iterator[None]:
    """Call `happens` after a conversion has written its cases, and before it renames the folder."""
    write = convert_module.write_dataset

    def write_and_more(*arguments: object) -> None:
        write(*arguments)
        monkeypatch.setattr(convert_module, "write_dataset", write)
        happens()

    monkeypatch.setattr(convert_module, "write_dataset", write_and_more)
    yield


@pytest.mark.parametrize("other", ["same name", "same id"])
def test_the_first_one_stays(
    other: str, tmp_path: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    first, second = (make_pairs(tmp_path / name / "set", [name]) for name in ("first", "second"))
    name = "set" if other == "same name" else "other"

    def convert_first() -> None:
        assert convert("folder", first, "--name", name) == 0

    with meanwhile(monkeypatch, convert_first):
        assert convert("folder", second) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"Dataset500_{name}: {'exists' if other == 'same name' else 'has the id 500 already'}" in last
    assert "It came while this conversion ran" in last
    assert names_in(nnunet) == [f"Dataset500_{name}"]
    assert names_in(nnunet / f"Dataset500_{name}" / "labelsTr") == ["first.png"]


def test_an_empty_folder_that_comes_is_left_alone(
    source: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    with meanwhile(monkeypatch, (nnunet / "Dataset501_KvasirSEG").mkdir):
        assert convert("kvasir-seg", source) == 1
    assert names_in(nnunet / "Dataset501_KvasirSEG") == []


def test_overwrite_takes_what_came(source: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with meanwhile(monkeypatch, (nnunet / "Dataset501_KvasirSEG").mkdir):
        assert convert("kvasir-seg", source, "--overwrite", "--no-split") == 0
    assert len(names_in(nnunet / "Dataset501_KvasirSEG" / "labelsTr")) == 10


@pytest.mark.parametrize("names", [("set", "set"), ("set", "other")])
def test_of_two_processes_one_succeeds(names: tuple[str, str], tmp_path: Path, nnunet: Path) -> None:
    sources = [make_pairs(tmp_path / str(number) / "set", [f"of{number}"]) for number in range(2)]
    command = [sys.executable, "-m", "nnunetv2_guidino.cli", "convert", "folder"]
    running = [
        subprocess.Popen([*command, source, "--name", name, "-np", "1"], stderr=subprocess.DEVNULL)
        for source, name in zip(sources, names, strict=True)
    ]
    status = [process.wait() for process in running]
    assert sorted(status) == [0, 1]
    (name,) = names_in(nnunet)
    winner = status.index(0)
    assert name == f"Dataset500_{names[winner]}"
    assert names_in(nnunet / name / "labelsTr") == [f"of{winner}.png"]
