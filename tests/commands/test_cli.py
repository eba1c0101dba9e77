import pytest

from nnunetv2_guidino import __version__
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
