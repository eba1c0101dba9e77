"""A model outlives its transformers: the oldest version that pyproject.toml allows beside the installed one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

REPOSITORY = Path(__file__).resolve().parents[3]
SUPPORT = REPOSITORY / "tests" / "support"


def oldest_allowed() -> str:
    match = re.search(r'"transformers>=([\d.]+)', (REPOSITORY / "pyproject.toml").read_text())
    parts = match[1].split(".")
    return ".".join([*parts, *["0"] * (3 - len(parts))])


def pip(*arguments: str) -> None:
    run = subprocess.run([sys.executable, "-m", "pip", "install", "-q", *arguments], capture_output=True, text=True)
    if run.returncode != 0:
        pytest.skip(f"pip install {' '.join(arguments)}: {run.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="module")
def oldest(tmp_path_factory) -> Path:
    """A folder with the oldest transformers, and what it needs in versions of its time."""
    folder = tmp_path_factory.mktemp("oldest")
    pip("--no-deps", "--target", str(folder), f"transformers=={oldest_allowed()}")
    metadata = next(folder.glob("transformers-*.dist-info/METADATA")).read_text()
    needed = re.findall(r"^Requires-Dist: ((?:tokenizers|huggingface-hub)[^;\n]*)$", metadata, re.MULTILINE)
    pip("--no-deps", "--target", str(folder), *(requirement.replace(" ", "") for requirement in needed))
    return folder


def run(action: str, folder: Path, libraries: Path | None) -> str:
    path = [str(SUPPORT), str(REPOSITORY)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*([str(libraries)] if libraries else []), *path])}
    command = [sys.executable, str(SUPPORT / "encoder_versions.py"), action, str(folder)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout.strip()


@pytest.mark.slow
def test_models_and_adapters_pass_from_each_version_to_the_other(oldest, tmp_path):
    """Weights, 0.1.0's weights, AdamW's moments and exported adapters, of every family."""
    versions = {"oldest": oldest, "installed": None}
    for writer, reader in (("oldest", "installed"), ("installed", "oldest")):
        folder = tmp_path / writer
        for action, version in (("write", writer), ("read", reader)):
            expected = oldest_allowed() if version == "oldest" else transformers.__version__
            assert run(action, folder, versions[version]).splitlines()[-1] == expected
