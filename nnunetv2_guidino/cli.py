"""`guidino`: one command, one module per subcommand.

A subcommand's module is imported only when it is asked for, so that `guidino --help` answers at once. Such a module has
`add_arguments(parser)` and `run(args)`; `run` raises GuidinoError for whatever the user can put right.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from nnunetv2_guidino import __version__
from nnunetv2_guidino.errors import GuidinoError

SUBCOMMANDS = {
    "convert": ("nnunetv2_guidino.commands.convert", "convert a data set as published to nnU-Net's raw format"),
    "demo": ("nnunetv2_guidino.commands.demo", "train and compare a plain and a guided nnU-Net on generated images"),
    "benchmark": ("nnunetv2_guidino.commands.benchmark", "run a matrix of trainings and report it"),
    "compare": ("nnunetv2_guidino.commands.compare", "compare evaluated methods: tables, differences, significance"),
    "doctor": ("nnunetv2_guidino.commands.doctor", "check the installation and say what to do about what is wrong"),
    "encoder": ("nnunetv2_guidino.commands.encoder", "list, fetch, check and probe encoders; export LoRA adapters"),
    "plan": ("nnunetv2_guidino.commands.plan", "derive plans for an experiment with the guide, or show a guide"),
    "evaluate": ("nnunetv2_guidino.commands.evaluate", "score predictions: Dice, IoU, HD95, NSD, precision, recall"),
    "guide": ("nnunetv2_guidino.commands.guide", "show the guide of a trained model on images, and score it"),
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="guidino", description="Guide nnU-Net v2 with a vision foundation model.")
    parser.add_argument("--version", action="version", version=f"nnunetv2-guidino {__version__}")
    subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    for name, (_, summary) in SUBCOMMANDS.items():
        subparsers.add_parser(name, help=summary, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    known, _ = build_parser().parse_known_args(arguments)  # answers --help, --version and an unknown subcommand
    module_name, summary = SUBCOMMANDS[known.subcommand]
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(prog=f"guidino {known.subcommand}", description=module.__doc__ or summary)
    module.add_arguments(parser)
    args = parser.parse_args(arguments[arguments.index(known.subcommand) + 1 :])
    try:
        return int(module.run(args) or 0)
    except GuidinoError as error:
        print(f"guidino {known.subcommand}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"guidino {known.subcommand}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
