"""`guidino`: one command, one module per subcommand.

A subcommand's module is imported only when it is asked for, so that `guidino --help` answers at once. The module has
`add_arguments(parser)` and `run(args)`, or `actions()`, several of them by name. It spells options and prints. A typed
function below does the work, and raises GuidinoError for all faults that the user can put right
(docs/reference/python_api.md).
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from nnunetv2_guidino import __version__
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lists import did_you_mean, one_of
from nnunetv2_guidino.printable import printable

SUBCOMMANDS = {  # each is a module of that name in commands/
    "convert": "convert a data set as published to nnU-Net's raw format",
    "demo": "train and compare a plain and a guided nnU-Net on generated images",
    "benchmark": "run a matrix of trainings and report it",
    "compare": "compare evaluated methods: tables, differences, significance",
    "doctor": "check the installation and say what to do about what is wrong",
    "encoder": "list, fetch, check and probe encoders; export LoRA adapters",
    "cost": "measure what a guide costs on your own plans and device",
    "plan": "derive plans for an experiment with the guide, or show a guide",
    "evaluate": "score predictions: Dice, IoU, HD95, NSD, precision, recall",
    "guide": "show the guide of a trained model on images, and score it",
}
OF_NNUNET = {
    "train": "training is nnUNetv2_train DATASET CONFIGURATION FOLD -tr nnUNetTrainerGuiDINO",
    "predict": "prediction is nnUNetv2_predict with -tr nnUNetTrainerGuiDINO",
}


class Parser(argparse.ArgumentParser):
    """argparse's parser, with errors that drive no terminal."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and exit with 2."""
        super().error(printable(message))


def find(words: Sequence[str]) -> tuple[Parser, Callable[[argparse.Namespace], int | None], Sequence[str]]:
    """Return the parser of the command that begins the words, its function, and the words left for the parser.

    If they begin with no command, print help, version or an error, and exit.
    """
    name, *rest = _choose("guidino", "Guide nnU-Net v2 with a vision foundation model.", SUBCOMMANDS, words)
    command: Any = importlib.import_module(f"nnunetv2_guidino.commands.{name}")
    prog, description = f"guidino {name}", command.__doc__
    if hasattr(command, "actions"):
        actions = command.actions()
        action, *rest = _choose(prog, description, {name: entry.summary for name, entry in actions.items()}, rest)
        prog, command = f"{prog} {action}", actions[action]
        description = command.summary
    parser = Parser(prog=prog, description=description)
    command.add_arguments(parser)
    return parser, command.run, rest


def _choose(prog: str, description: str | None, known: Mapping[str, str], words: Sequence[str]) -> Sequence[str]:
    """Return the words if the first one is known; else answer, and exit."""
    if words and words[0] in known:
        return words
    parser = Parser(prog=prog, description=description, usage="%(prog)s [-h] COMMAND …")
    if known is SUBCOMMANDS:
        parser.add_argument("--version", action="version", version=f"nnunetv2-guidino {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, summary in known.items():
        commands.add_parser(name, help=summary)
    if not words:
        parser.print_help(sys.stderr)
        parser.exit(2, f"{prog}: error: COMMAND is missing\n")
    if words[0].startswith("-"):
        parser.parse_args(words[:1])  # help, version, or an unknown option
    elsewhere = OF_NNUNET.get(words[0], f"expected {one_of(known)}{did_you_mean(words[0], known)}")
    parser.error(f"there is no command {words[0]}; {elsewhere}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. A fault that the user can put right is one line on the error stream."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal or a log that knows no × or λ shows something else
            stream.reconfigure(errors="replace")
    try:
        parser, run, rest = find(words)
        return int(run(parser.parse_args(rest)) or 0)
    except GuidinoError as error:
        return _complain(words[0], f"error: {error}", 1)
    except KeyboardInterrupt:
        return _complain(words[0], "interrupted", 130)
    except MemoryError as error:
        return _complain(words[0], f"error: not enough memory. {error}".rstrip(), 1)
    except BrokenPipeError:  # the reader of the output has gone, such as `head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  Python flushes it at exit
        return 141
    except OSError as error:  # a full disk, a name too long, a disk that is gone: the last net for what nobody caught
        where = f"{error.filename}: " if error.filename else ""
        return _complain(words[0], f"error: {where}{error.strerror or error}", 1)


def _complain(name: str, message: str, code: int) -> int:
    """Print a message without control characters: names and keys come from files of anybody."""
    print(f"guidino {name}: " + "\n".join(map(printable, message.split("\n"))), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
