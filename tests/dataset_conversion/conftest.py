from __future__ import annotations

import os
from pathlib import Path

import pytest
from pairs import make_pairs


@pytest.fixture
def nnunet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nnU-Net's three folders, not made yet; returns nnUNet_raw."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / "nnunet" / name))
    return tmp_path / "nnunet" / "nnUNet_raw"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_pairs(tmp_path / "Kvasir-SEG", [f"cju{i}" for i in range(10)])


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Parts of the published data sets, which the repository does not hold."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("GUIDINO_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; GUIDINO_TEST_DATA can name another folder")
    return folder
