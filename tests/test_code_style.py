"""What the linter, the formatter, the type checker and the contract of the floors say."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nnunetv2_guidino

REPOSITORY = Path(__file__).resolve().parents[1]
LONGEST_FILE = 300  # lines


@pytest.mark.parametrize("command", ["ruff check", "ruff format --check", "mypy", "lint-imports"])
def test_clean(command):
    tool, *arguments = command.split()
    script = Path(sys.executable).parent / tool
    done = subprocess.run([script, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_is_long():
    folders = (REPOSITORY / name for name in ("nnunetv2_guidino", "dataset_conversion", "tests", "docs"))
    files = [file for folder in folders for file in folder.rglob("*.py")]
    lengths = {str(file.relative_to(REPOSITORY)): len(file.read_text().splitlines()) for file in files}
    assert {file: lines for file, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_a_file_name_stands_once():
    names = [file.name for file in (REPOSITORY / "nnunetv2_guidino").rglob("*.py") if file.name != "__init__.py"]
    assert sorted(names) == sorted(set(names))


def public_definitions() -> Iterator[tuple[str, str | None]]:
    """The name and docstring of every public module, class, function, method and property of the package."""
    for found in pkgutil.walk_packages(nnunetv2_guidino.__path__, "nnunetv2_guidino."):
        module = importlib.import_module(found.name)
        yield found.name, module.__doc__
        for name, value in vars(module).items():
            kind = inspect.isclass(value) or inspect.isfunction(value)
            if kind and not name.startswith("_") and value.__module__ == found.name:
                yield f"{found.name}.{name}", value.__doc__
                if inspect.isclass(value):
                    yield from ((f"{found.name}.{name}.{key}", doc) for key, doc in public_members(value))


def public_members(owner: type) -> Iterator[tuple[str, str | None]]:
    """The names and docstrings of what the class defines; what overrides may have its base's docstring."""
    for name, value in vars(owner).items():
        if not name.startswith("_") and isinstance(value, FUNCTIONS):
            bases: list[Any] = [vars(base)[name] for base in owner.__mro__ if name in vars(base)]
            yield name, next((base.__doc__ for base in bases if getattr(base, "__doc__", None)), None)


FUNCTIONS = (type(lambda: None), property, classmethod, staticmethod)


def test_every_public_definition_has_a_docstring_of_whole_sentences():
    wrong = {}
    for name, doc in public_definitions():
        first = inspect.cleandoc(doc or "").split("\n\n")[0]
        if not first.endswith((".", ":", "?")):
            wrong[name] = first
    assert wrong == {}
