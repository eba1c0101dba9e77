"""Whatever is typed: success, one clear line or the usage; no traceback, no hang. Nothing that trains is started."""

import importlib
from pathlib import Path

import pytest
from fuzzing import FUZZ, check, half_written, run
from hypothesis import given
from hypothesis import strategies as st
from scenes import SCENES, demo

from nnunetv2_guidino.cli import SUBCOMMANDS, find
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.folders import VARIABLES

TEXTS = st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), max_size=8)
NUMBERS = ["0", "1", "-1", "999", "1e9", "nan", "inf", "1,2", "2,1", "²", "١"]
PATHS = ["/", ".", "..", "~", "nowhere", "no/where", "a/b/c", "x" * 300, "\x1b[31m", "$HOME", "*"]
WORDS = st.sampled_from(["", "a=1", "a=1,b=2", "=", "x=", "all", "last", "cpu", "skips", *NUMBERS, *PATHS])
# They would go on to train, preprocess or serve what was asked for.
ENDS_EARLY = {"benchmark": ["--dry-run"]}


def options_of(command: str) -> list[list[str]]:
    """Each option, and each way to begin of a command with actions, as the words before its values."""
    actions = getattr(importlib.import_module(f"nnunetv2_guidino.commands.{command}"), "actions", dict)()
    found: list[list[str]] = [[action] for action in actions]
    for begin in found.copy() or [[]]:
        options = find([command, *begin])[0]._actions
        found += [[*begin, one.option_strings[-1]] for one in options if one.option_strings and one.dest != "help"]
    return found


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to be in, and nnU-Net's folders; the demo refuses before it trains."""
    for name in VARIABLES:
        monkeypatch.setenv(name, str(tmp_path / name))
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))

    def without_extra():
        raise GuidinoError("the extra demo is not installed")

    monkeypatch.setattr("nnunetv2_guidino.lab.demo.run_demo.find_onnx", without_extra)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", [name for name in SUBCOMMANDS if name != "doctor"])
def test_any_words(command, here):
    values = st.lists(TEXTS | WORDS, max_size=2)
    option = st.tuples(st.sampled_from(options_of(command)), values).map(lambda pair: [*pair[0], *pair[1]])

    @FUZZ
    @given(st.lists(option, max_size=4), values)
    def try_words(options, others):
        words = [word for words in options for word in words] + others + ENDS_EARLY.get(command, [])
        code, _, error = run(command, *words)
        check(code, error, command)
        assert not half_written(here)

    try_words()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scene", [*(name for name in SCENES if name != "encoder_probe"), "demo"])
def test_one_word_of_a_command_that_works(scene, tmp_path, here):
    sound = (SCENES | {"demo": demo})[scene](tmp_path)

    @FUZZ
    @given(st.integers(1, len(sound.arguments) - 1), TEXTS | WORDS)
    def try_word(position, word):
        words = list(sound.arguments)
        words[position] = word
        sound.prepare()
        code, _, error = run(*words)
        check(code, error, str(words[0]))
        assert not half_written(here)

    try_word()


@pytest.mark.filterwarnings("ignore")
def test_the_doctor_with_any_environment(monkeypatch, tmp_path):
    names = st.sampled_from([*VARIABLES, "GUIDINO_ENCODER", "nnUNet_extTrainer", "nnUNet_def_n_proc"])

    @FUZZ
    @given(st.dictionaries(names, (TEXTS | WORDS).filter(lambda text: len(text.encode()) < 100)))
    def try_environment(variables):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            code, out, error = run("doctor")
        assert code in (0, 1)
        assert error == ""
        assert (code == 0) == ("Everything is in place." in out)

    try_environment()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("variable", [*VARIABLES, "nnUNet_def_n_proc"])
@pytest.mark.parametrize("scene", ["evaluate_model", "benchmark", "convert_folder"])
def test_any_environment(variable, scene, tmp_path):
    sound = SCENES[scene](tmp_path)

    @FUZZ
    @given(TEXTS | WORDS)
    def try_value(value):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(variable, value)
            sound.prepare()
            code, _, error = run(*sound.arguments)
        check(code, error, str(sound.arguments[0]))

    try_value()
