from __future__ import annotations

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
