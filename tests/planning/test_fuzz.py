"""Whatever stands in what `guidino plan` reads: success or one line, no traceback, nothing half-written."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import planned
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunetv2_guidino.cli import main

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**30) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)
FUZZ = settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def paths(tree: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of every value in it."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for key, value in items for found in [(*prefix, key), *paths(value, (*prefix, key))]]


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value there; it is removed for Ellipsis."""
    copy = json.loads(json.dumps(tree))
    place = copy
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copy


def plan(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and complaint; a traceback fails the test."""
    (folder / "New.json").unlink(missing_ok=True)
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(["plan", "-d", planned.DATASET, "-o", "New", *arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    written = folder / "New.json"
    assert written.exists() == (code == 0)
    if code == 0:
        assert json.loads(written.read_text())["plans_name"] == "New"
    return code, errors.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", ["nnUNetPlans.json", "dataset.json"])
def test_any_value_anywhere(file, folder):
    sound = json.loads((folder / file).read_text())

    @FUZZ
    @given(st.sampled_from(paths(sound)), VALUES | st.just(...))
    def check(path, value):
        (folder / file).write_text(json.dumps(changed(sound, path, value)))
        code, error = plan(folder)
        assert code in (0, 1)
        assert (code == 1) == bool(error)

    check()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", ["nnUNetPlans.json", "dataset.json"])
def test_any_bytes(file, folder):
    sound = (folder / file).read_bytes()

    @FUZZ
    @given(st.binary(max_size=40) | st.integers(0, len(sound) - 1).map(lambda end: sound[:end]))
    def check(content):
        (folder / file).write_bytes(content)
        code, error = plan(folder)
        assert code == 1
        assert file in error

    check()


@pytest.mark.filterwarnings("ignore")
def test_any_change(folder):
    keys = [".".join(map(str, path)) for path in paths(json.loads((folder / "nnUNetPlans.json").read_text()))]

    @FUZZ
    @given(st.sampled_from(keys) | st.text(max_size=12), VALUES.map(json.dumps) | st.text(max_size=8))
    def check(key, value):
        code, _ = plan(folder, f"--set={key}={value}")
        assert code in (0, 1)

    check()
