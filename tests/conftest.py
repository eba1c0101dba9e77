"""Fixtures shared by all tests: where real images lie, tiny pretrained encoders, nnU-Net's environment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from nnunet_workspace import Workspace

REPOSITORY = Path(__file__).resolve().parents[1]
# Threads that wait for each other cost more than they give where several processes share the cores, as with -n 2.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files begin: with several processes (-n), none is left alone with one of them in the end."""
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow_files, item.path.name != "test_integration.py"))


@pytest.fixture(scope="session")
def real_data_root() -> Path:
    """Where real data sets may lie; none is shipped."""
    return Path(os.environ.get("GUIDINO_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data(real_data_root: Path) -> Callable[[str], Path]:
    """Folder of a real data set, by name; skips where it is absent."""

    def folder(name: str) -> Path:
        if not (real_data_root / name).is_dir():
            pytest.skip(f"no {name} in {real_data_root}; set GUIDINO_TEST_DATA to a folder that has it")
        return real_data_root / name

    return folder


@pytest.fixture(autouse=True, scope="session")
def _no_hub() -> None:
    """Nothing in the tests may depend on a download."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.pop("GUIDINO_ENCODER", None)


@pytest.fixture(autouse=True)
def _encoders_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the CPU, so that a test finds the same everywhere; test_precision.py is about bfloat16."""
    from nnunetv2_guidino.model.encoders import precision

    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a tiny random encoder of a family, as save_pretrained writes it."""
    from tiny_encoders import save_tiny_encoder

    folders: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in folders:
            folders[family] = save_tiny_encoder(family, tmp_path_factory.mktemp(family))
        return folders[family]

    return folder


@pytest.fixture(scope="session")
def dinov2_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the real DINOv2 ViT-S/14."""
    from nnunetv2_guidino.lab.demo.dinov2 import export_dinov2

    folder = tmp_path_factory.mktemp("weights") / "dinov2-small"
    export_dinov2(folder)
    return folder


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, real_data_root: Path) -> Workspace:
    """nnU-Net's folders with twelve small images, preprocessed; the last four validate fold 0."""
    from nnunet_workspace import prepared_workspace, small_cases

    return prepared_workspace(tmp_path_factory.mktemp("nnunet"), small_cases(real_data_root), validation=4)


@pytest.fixture(scope="session")
def trained_models(workspace: Workspace, tiny_encoder: Callable[[str], Path]) -> dict[str, Path]:
    """Model folders of a plain and a guided network, trained for a moment on fold 0."""
    folders = {}
    for name, kind in (("plain", "Baseline"), ("guided", "")):
        trainer = f"nnUNetTrainerGuiDINO{kind}_1epochs_5iterations_seed0"
        workspace.train(trainer, GUIDINO_ENCODER=str(tiny_encoder("dinov3")))
        folders[name] = workspace.model_folder(trainer)
    return folders


@pytest.fixture
def planned_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_encoder: Callable[[str], Path]
) -> Callable[..., Any]:
    """Trainer objects on small plans and the CPU, all in one results folder, without any data."""
    import planned

    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("GUIDINO_ENCODER", str(tiny_encoder("dinov3")))
    planned.mark_file_format(tmp_path / "nnUNet_preprocessed")
    return planned.build_trainer


@pytest.fixture
def guidino(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a subcommand in this process; returns what it prints. An error of the user raises AssertionError with it."""
    from nnunetv2_guidino.cli import main

    def run(*arguments: object) -> str:
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert status == 0, err
        return out

    return run
