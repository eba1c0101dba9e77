"""Test results of earlier data, and nnU-Net's folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pairs import convert

Capture = pytest.CaptureFixture[str]
NAME = "Dataset501_KvasirSEG"


def test_an_old_fingerprint_is_cleaned_and_old_models_are_named(source: Path, nnunet: Path, capsys: Capture) -> None:
    assert convert("kvasir-seg", source) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("-d 501 -c 2d --verify_dataset_integrity")
    preprocessed = nnunet.parent / "nnUNet_preprocessed" / NAME
    for name in ("dataset_fingerprint", "nnUNetPlans", "nnUNetPlansGuideB", "dataset"):
        (preprocessed / f"{name}.json").write_text("{}")
    model = "nnUNetTrainerGuiDINO__nnUNetPlans__2d"
    (nnunet.parent / "nnUNet_results" / NAME / model).mkdir(parents=True)
    assert convert("kvasir-seg", source, "--overwrite") == 0
    out, error = capsys.readouterr()
    assert out.splitlines()[-1].endswith("--verify_dataset_integrity --clean")
    assert "planned for the data before: nnUNetPlans, nnUNetPlansGuideB; plan again" in error
    assert f"trained on the data before: {model} in {nnunet.parent / 'nnUNet_results' / NAME}" in error


def test_torn_splits_are_kept_unless_overwritten(source: Path, nnunet: Path, capsys: Capture) -> None:
    splits = nnunet.parent / "nnUNet_preprocessed" / NAME / "splits_final.json"
    splits.parent.mkdir(parents=True)
    splits.write_text('[{"train": ')
    assert convert("kvasir-seg", source) == 1
    assert f"{splits} is no JSON file, or was cut short" in capsys.readouterr().err
    assert splits.read_text() == '[{"train": '
    assert convert("kvasir-seg", source, "--overwrite") == 0


@pytest.mark.parametrize("value", ["", None])
def test_raw_folder_that_is_set_to_nothing(
    value: str | None, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    assert convert("kvasir-seg", source) == 1
    assert f"nnUNet_raw {'is not set' if value is None else 'is set to nothing'}; set it" in capsys.readouterr().err
    assert convert("kvasir-seg", source, "-o", tmp_path / "raw") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Kvasir-SEG", "raw"]


@pytest.mark.parametrize("option", ["-o", "--preview", "--split"])
def test_empty_paths(option: str, source: Path, nnunet: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        convert("kvasir-seg", source, option, "")
    assert "is empty" in capsys.readouterr().err


def test_results_that_cannot_be_read(
    source: Path, nnunet: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    results = nnunet.parent / "nnUNet_results"
    results.mkdir(parents=True)
    listed = Path.iterdir

    def refuse(self: Path) -> object:
        if self == results:
            raise PermissionError(13, os.strerror(13))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert convert("kvasir-seg", source) == 1
    assert f"{results} cannot be read: Permission denied" in capsys.readouterr().err
