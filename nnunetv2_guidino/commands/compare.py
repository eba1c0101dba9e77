"""Compare methods that `guidino evaluate` scored on the same cases; the first one is the baseline. A RUN is
NAME=FOLDER,FOLDER,… with one folder for each seed (or fold) of a method, or just FOLDER. A folder is the output of
evaluate, or a model folder after `guidino evaluate -m`. Prints a table of mean ± standard deviation over seeds and
folds with the difference from the baseline in parentheses, and tests the paired differences of the cases.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_guidino.commands.signature import Option, options_of
from nnunetv2_guidino.errors import GuidinoError

add_arguments = options_of(
    "nnunetv2_guidino.tools.evaluation.comparison:compare",
    runs=Option("RUN", type=str, nargs="+", help="NAME=FOLDER,FOLDER,… or FOLDER; the first is the baseline"),
    output="-o DIR",
)


def run(args: argparse.Namespace) -> None:
    """Compare, write, and print the tables."""
    from nnunetv2_guidino.tools.evaluation.comparison import compare

    print(compare(parse_runs(args.runs), args.output).text)


def parse_runs(arguments: Sequence[str]) -> dict[str, list[Path]]:
    """Return name and folders of all runs; raise GuidinoError if two have one name."""
    runs: dict[str, list[Path]] = {}
    for argument in arguments:
        name, folders = parse_run(argument)
        if name in runs:
            raise GuidinoError(f"two runs are called {name}: tell them apart with NAME=FOLDER")
        runs[name] = folders
    return runs


def parse_run(argument: str) -> tuple[str, list[Path]]:
    """Return name and folders of NAME=FOLDER,FOLDER… or FOLDER."""
    name, separator, folders = argument.partition("=")
    if not separator or os.path.isdir(argument):  # noqa: PTH112  Path.is_dir fails for a name that is too long
        folder = Path(argument).resolve()
        return folder.parent.name if folder.name == "evaluation" else folder.name, [Path(argument)]
    if not name or not all(folders.split(",")):
        raise GuidinoError(f"'{argument}': expected NAME=FOLDER,FOLDER,… or FOLDER")
    return name, [Path(folder) for folder in folders.split(",")]
