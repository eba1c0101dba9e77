import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nnunetv2_guidino
from nnunetv2_guidino import __version__, commands
from nnunetv2_guidino.cli import SUBCOMMANDS, find, main
from nnunetv2_guidino.errors import GuidinoError


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert __version__ in capsys.readouterr().out


def commands_of(subcommand: str) -> list[list[str]]:
    """The subcommand, and those below it."""
    module = importlib.import_module(f"nnunetv2_guidino.commands.{subcommand}")
    return [[subcommand], *([subcommand, action] for action in getattr(module, "actions", dict)())]


COMMANDS = [command for subcommand in SUBCOMMANDS for command in commands_of(subcommand)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])
    assert exit_.value.code == 0
    assert f"usage: guidino {' '.join(command)}" in capsys.readouterr().out


@pytest.mark.parametrize("command", [each for each in COMMANDS if each not in (["convert"], ["encoder"])], ids=" ".join)
def test_every_option_has_a_help(command):
    """An option that a function no longer has would have none."""
    assert [option.dest for option in find(command)[0]._actions if not option.help] == []


def test_help_imports_nothing_that_takes_long():
    """A converter's options follow from its data set, whose description needs numpy."""
    from nnunetv2_guidino.tools.conversion.converters import CONVERTERS

    light = [command for command in COMMANDS if command[-1] not in CONVERTERS]
    code = "import sys; from nnunetv2_guidino.cli import main\n"
    for command in light:
        code += f"try: main({[*command, '--help']})\nexcept SystemExit: pass\n"
    code += "print({'torch', 'numpy', 'pandas', 'matplotlib', 'scipy'} & {*sys.modules}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "set()\n"


def test_the_table_is_what_lies_in_the_folder():
    folder = Path(commands.__file__).parent
    modules = {file.stem for file in folder.glob("*.py")} - {"__init__", "options", "signature"}
    assert set(SUBCOMMANDS) == modules
    for name in modules:
        module = importlib.import_module(f"nnunetv2_guidino.commands.{name}")
        for command in (module.actions() if hasattr(module, "actions") else {name: module}).values():
            assert callable(command.add_arguments)
            assert callable(command.run)
        assert module.__doc__


def test_commands_hold_options_and_printing_only():
    """argparse is asked for in commands/ and cli.py alone, so that a notebook can call all that lies below."""
    package = Path(nnunetv2_guidino.__file__).parent
    users = {
        str(file.relative_to(package).parts[0])
        for file in package.rglob("*.py")
        if "import argparse" in file.read_text(encoding="utf-8")
    }
    assert users == {"commands", "cli.py"}


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (OSError(28, "No space left on device", "/full/file"), "error: /full/file: No space left on device", 1),
        (OSError(30, "Read-only file system"), "error: Read-only file system", 1),
        (MemoryError("Unable to allocate 8 TiB"), "error: not enough memory. Unable to allocate 8 TiB", 1),
        (GuidinoError("the key a\x1b[31m\rb"), "error: the key a\\x1b[31m\\rb", 1),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
)
def test_what_nobody_caught_is_one_line(error, line, code, capsys, monkeypatch):
    def fail(args):
        raise error

    monkeypatch.setattr("nnunetv2_guidino.commands.doctor.run", fail)
    assert main(["doctor"]) == code
    assert capsys.readouterr().err == f"guidino doctor: {line}\n"


def test_a_reader_that_leaves_early_is_no_error():
    command = [sys.executable, "-m", "nnunetv2_guidino.cli", "encoder", "list"]
    code = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE);"
    code += "p.stdout.close(); print(p.stderr.read().decode()); p.wait()"
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stdout


def test_a_terminal_that_knows_no_greek_is_no_error():
    command = [sys.executable, "-m", "nnunetv2_guidino.cli", "plan", "--help"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        ([], ["doctor", "guidino: error: COMMAND is missing"]),
        (["trian"], ["guidino: error: there is no command trian; expected one of ", "doctor"]),
        (["convrt"], ["; did you mean convert?"]),
        (["train", "1"], ["nnUNetv2_train DATASET CONFIGURATION FOLD -tr nnUNetTrainerGuiDINO"]),
        (["encoder"], ["export-lora", "guidino encoder: error: COMMAND is missing"]),
        (["encoder", "prove"], ["guidino encoder: error: there is no command prove", "; did you mean probe?"]),
        (["convert", "kvasir"], ["; did you mean kvasir-seg?"]),
        (["--vresion"], ["guidino: error: unrecognized arguments: --vresion"]),
        (["\x1b[31m"], ["there is no command \\x1b[31m"]),
        (["demo", "--\x1b[31m"], ["unrecognized arguments: --\\x1b[31m"]),
    ],
)
def test_an_unknown_command_is_answered_with_the_known_ones(words, messages, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert [message for message in messages if message not in error] == []


def test_user_errors_are_one_line(capsys, monkeypatch):
    def fail(args):
        raise GuidinoError("dataset.json: no such file")

    monkeypatch.setattr("nnunetv2_guidino.commands.doctor.run", fail)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == "guidino doctor: error: dataset.json: no such file\n"
