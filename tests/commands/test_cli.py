import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nnunetv2_guidino
from nnunetv2_guidino import __version__, commands
from nnunetv2_guidino.cli import SUBCOMMANDS, main
from nnunetv2_guidino.errors import GuidinoError


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_every_subcommand_has_help(subcommand, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([subcommand, "--help"])
    assert exit_.value.code == 0
    assert f"usage: guidino {subcommand}" in capsys.readouterr().out


def test_the_table_is_what_lies_in_the_folder():
    folder = Path(commands.__file__).parent
    modules = {file.stem for file in folder.glob("*.py")} - {"__init__", "options"}
    assert set(SUBCOMMANDS) == modules
    for name in modules:
        module = importlib.import_module(f"nnunetv2_guidino.commands.{name}")
        assert callable(module.add_arguments)
        assert callable(module.run)
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


def test_unknown_subcommand_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["trian"])
    assert exit_.value.code == 2
    assert "doctor" in capsys.readouterr().err


def test_user_errors_are_one_line(capsys, monkeypatch):
    def fail(args):
        raise GuidinoError("dataset.json: no such file")

    monkeypatch.setattr("nnunetv2_guidino.commands.doctor.run", fail)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == "guidino doctor: error: dataset.json: no such file\n"
