"""Impossible paths, folders that cannot be written, and options out of range."""

import pytest
from evaluation_data import square, write_pngs, write_summary

from nnunetv2_guidino import files

LONG = "x" * 300


@pytest.mark.parametrize("option", ["-gt", "-pred", "-i", "-o"])
@pytest.mark.parametrize("path", [LONG, "nowhere/x", "file"])
def test_paths_of_evaluate(path, option, folders, guidino, tmp_path):
    (tmp_path / "file").write_text("")
    arguments = {"-gt": folders[0], "-pred": folders[1], "-o": tmp_path / "out"} | {option: tmp_path / path}
    typed = [word for pair in arguments.items() for word in pair]
    if option == "-o" and path == "nowhere/x":
        guidino("evaluate", *typed, "-np", 1)  # the command makes the folder
        return
    with pytest.raises(AssertionError, match=path):
        guidino("evaluate", *typed, "-np", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "gt", "pred"]


@pytest.mark.parametrize("path", [LONG, "nowhere", "file", "file/x"])
def test_model_folders_that_are_none(path, guidino, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AssertionError, match=path):
        guidino("evaluate", "-m", tmp_path / path)
    with pytest.raises(AssertionError, match=path):
        guidino("compare", tmp_path / path)


def test_many_seeds_are_a_long_argument(guidino, tmp_path, monkeypatch):
    """The argument is longer than a file name may be."""
    monkeypatch.chdir(tmp_path)
    seeds = [write_summary(tmp_path / f"seed_{i:03}_of_a_long_name", {"a": 0.5, "b": 0.6}).name for i in range(20)]
    assert "| plain | 55.00 ± 0.00 |" in guidino("compare", "plain=" + ",".join(seeds))


@pytest.mark.parametrize("argument", ["=a", "a=", "a=b,", "a=,b"])
def test_runs_that_are_not_named(argument, guidino):
    with pytest.raises(AssertionError, match="expected NAME=FOLDER,FOLDER"):
        guidino("compare", argument)


def test_a_seed_counts_once(guidino, tmp_path):
    write_summary(tmp_path / "a", {"x": 0.5})
    with pytest.raises(AssertionError, match="plain: .*a is given twice"):
        guidino("compare", f"plain={tmp_path / 'a'},{tmp_path}/./a")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--nsd-tolerance", "nan"), ("--nsd-tolerance", "inf"), ("--nsd-tolerance", "-1"), ("-np", "0"), ("-np", "-3")],
)
def test_options_out_of_range(option, value, folders, guidino, tmp_path):
    with pytest.raises(AssertionError, match=rf"{option} {value}"):
        guidino("evaluate", "-gt", folders[0], "-pred", folders[1], "-o", tmp_path / "out", f"{option}={value}")


def test_a_full_disk_leaves_the_earlier_report(folders, guidino, tmp_path, monkeypatch):
    arguments = ["evaluate", "-gt", folders[0], "-pred", folders[1], "-o", tmp_path / "out", "-np", 1]
    guidino(*arguments)
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    write_pngs(folders[1], {"a": square(20, 20)})
    real = files.Path.rename
    moves = []

    def full(self, target):
        moves.append(self)
        if len(moves) == 5:
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(files.Path, "rename", full)
    with pytest.raises(AssertionError, match="out cannot be written: No space left on device"):
        guidino(*arguments)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
