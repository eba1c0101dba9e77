"""`guidino`: one command, one module per subcommand.

A subcommand's module is imported only when it is asked for, so that `guidino --help` answers at once. Such a module has
`add_arguments(parser)` and `run(args)`, which holds options and printing only: the work is done by a typed function
below, which raises GuidinoError for whatever the user can put right (docs/reference/python_api.md).
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from nnunetv2_guidino import __version__
from nnunetv2_guidino.errors import GuidinoError
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


def build_parser() -> argparse.ArgumentParser:
    """The parser of `guidino` itself; a subcommand's options are its module's."""
    parser = argparse.ArgumentParser(prog="guidino", description="Guide nnU-Net v2 with a vision foundation model.")
    parser.add_argument("--version", action="version", version=f"nnunetv2-guidino {__version__}")
    subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    for name, summary in SUBCOMMANDS.items():
        subparsers.add_parser(name, help=summary, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit code. Whatever the user can put right is one line on the error stream."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal or a log that knows no × or λ shows something else
            stream.reconfigure(errors="replace")
    known, _ = build_parser().parse_known_args(arguments)  # answers --help, --version and an unknown subcommand
    name = known.subcommand
    module = importlib.import_module(f"nnunetv2_guidino.commands.{name}")
    parser = argparse.ArgumentParser(prog=f"guidino {name}", description=module.__doc__ or SUBCOMMANDS[name])
    try:
        module.add_arguments(parser)
        args = parser.parse_args(arguments[arguments.index(name) + 1 :])
        return int(module.run(args) or 0)
    except GuidinoError as error:
        return _complain(name, str(error), 1)
    except KeyboardInterrupt:
        return _complain(name, "interrupted", 130)
    except MemoryError as error:
        return _complain(name, f"not enough memory. {error}".strip(), 1)
    except BrokenPipeError:  # whoever read the output has gone, such as `head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  Python flushes it at exit
        return 141
    except OSError as error:  # a full disk, a name too long, a disk that is gone: the last net for what nobody caught
        where = f"{error.filename}: " if error.filename else ""
        return _complain(name, f"{where}{error.strerror or error}", 1)


def _complain(name: str, message: str, code: int) -> int:
    """Print what is wrong, and nothing that drives a terminal: names and keys come from files of anybody."""
    prefix = f"guidino {name}: " + ("" if code == 130 else "error: ")
    print(prefix + "\n".join(map(printable, message.split("\n"))), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
