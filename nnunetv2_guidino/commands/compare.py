"""Compare methods that `guidino evaluate` scored on the same cases; the first one is the baseline. A RUN is
NAME=FOLDER,FOLDER,… with one folder for each seed (or fold) of a method, or just FOLDER. A folder is what evaluate
wrote, or a model folder after `guidino evaluate -m`. Prints a table of mean ± standard deviation over seeds and folds
with the difference from the baseline in parentheses, and tests the paired differences of the cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.evaluation.cases import is_folder
from nnunetv2_guidino.tools.evaluation.comparison import compare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `guidino compare`."""
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="NAME=FOLDER,FOLDER,… or FOLDER; the first: the baseline"
    )
    parser.add_argument(
        "-o", type=Path, metavar="DIR", help="also write comparison.md, .csv, .tex, differences.csv and differences.png"
    )


def run(args: argparse.Namespace) -> None:
    """Compare, write, and print the tables."""
    print(compare(parse_runs(args.runs), args.o).text)


def parse_runs(arguments: Sequence[str]) -> dict[str, list[Path]]:
    """Name -> folders of all runs; raises GuidinoError if two have one name."""
    runs: dict[str, list[Path]] = {}
    for argument in arguments:
        name, folders = parse_run(argument)
        if name in runs:
            raise GuidinoError(f"two runs are called {name}: tell them apart with NAME=FOLDER")
        runs[name] = folders
    return runs


def parse_run(argument: str) -> tuple[str, list[Path]]:
    """Name and folders of NAME=FOLDER,FOLDER… or FOLDER."""
    name, separator, folders = argument.partition("=")
    if not separator or is_folder(Path(argument)):
        folder = Path(argument).resolve()
        return folder.parent.name if folder.name == "evaluation" else folder.name, [Path(argument)]
    if not name or not all(folders.split(",")):
        raise GuidinoError(f"'{argument}': expected NAME=FOLDER,FOLDER,… or FOLDER")
    return name, [Path(folder) for folder in folders.split(",")]
