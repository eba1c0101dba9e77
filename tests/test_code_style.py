"""What the linter, the formatter, the type checker and the contract of the floors say."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
LONGEST_FILE = 300  # lines


@pytest.mark.parametrize("command", ["ruff check", "ruff format --check", "mypy", "lint-imports"])
def test_clean(command):
    tool, *arguments = command.split()
    script = Path(sys.executable).parent / tool
    done = subprocess.run([script, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_is_long():
    folders = (REPOSITORY / name for name in ("nnunetv2_guidino", "dataset_conversion", "tests"))
    files = [file for folder in folders for file in folder.rglob("*.py")]
    lengths = {str(file.relative_to(REPOSITORY)): len(file.read_text().splitlines()) for file in files}
    assert {file: lines for file, lines in lengths.items() if lines > LONGEST_FILE} == {}
