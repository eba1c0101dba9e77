"""Whatever stands in what `guidino plan` reads: success or one line, no traceback, nothing half-written."""

import contextlib
import io
import json
from pathlib import Path

import planned
import pytest
from fuzzing import FUZZ, VALUES, changed, paths
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_guidino.cli import main

FUZZ = settings(FUZZ, max_examples=max(150, FUZZ.max_examples))


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
