"""What a wheel and an editable install put where, and that uninstalling takes all of it away."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]
REGISTRATION = "nnunetv2/training/nnUNetTrainer/nnUNetTrainerGuiDINO.py"


@pytest.fixture
def empty_environment(tmp_path) -> Path:
    """The Python of a virtual environment with nothing but pip."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    return next(tmp_path.glob("venv/*/python"))


def pip(python: Path, *arguments: object) -> None:
    subprocess.run([python, "-m", "pip", *map(str, arguments)], check=True, capture_output=True)


def output_of(python: Path, code: str) -> str:
    # isolated (-I): neither PYTHONPATH nor this folder may help
    done = subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def site_packages(python: Path) -> Path:
    return Path(output_of(python, "import sysconfig; print(sysconfig.get_path('purelib'))"))


def files_below(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)) for path in files if "pip" not in path.parts[len(folder.parts)]}


def test_wheel_registers_the_trainer_and_leaves_nothing_behind(empty_environment):
    folder = site_packages(empty_environment)
    before = files_below(folder)
    pip(empty_environment, "install", "--no-deps", REPOSITORY)
    added = {path for path in files_below(folder) - before if ".dist-info" not in path}
    assert REGISTRATION in added
    assert {Path(path).parts[0] for path in added} == {"nnunetv2", "nnunetv2_guidino"}
    assert {p for p in added if p.startswith("nnunetv2/") and p.endswith(".py")} == {REGISTRATION}
    for name in ("py.typed", "dataset_conversion/Dataset501_KvasirSEG.py"):
        assert f"nnunetv2_guidino/{name}" in added
    external = output_of(empty_environment, "import nnunetv2_guidino as n; print(n.registration_folder())")
    assert Path(external) / Path(REGISTRATION).name == folder / REGISTRATION
    code = "import nnunetv2_guidino as n; print(n.converters_folder())"
    assert Path(output_of(empty_environment, code)) == folder / "nnunetv2_guidino" / "dataset_conversion"
    guidino = empty_environment.parent / "guidino"
    assert "demo" in subprocess.run([guidino, "--help"], check=True, capture_output=True, text=True).stdout

    output_of(empty_environment, f"import compileall; compileall.compile_dir({str(folder / 'nnunetv2')!r}, quiet=2)")
    pip(empty_environment, "uninstall", "-y", "nnunetv2-guidino")
    assert files_below(folder) == before
    assert not guidino.exists()


def test_editable_install_finds_the_converters_in_the_clone(empty_environment):
    pip(empty_environment, "install", "--no-deps", "-e", REPOSITORY)
    code = "import nnunetv2_guidino as n; print(n.converters_folder())"
    assert Path(output_of(empty_environment, code)) == REPOSITORY / "dataset_conversion"
    folder = output_of(empty_environment, "import nnunetv2_guidino as n; print(n.registration_folder())")
    assert Path(folder) == REPOSITORY / "nnunetv2_guidino" / "registration"
