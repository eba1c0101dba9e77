"""Run a matrix of trainings (data sets × plans × trainers × folds × seeds × training cases) with nnU-Net's own
commands, and report it. What is missing is planned, preprocessed, trained or resumed; what is done is kept, so the same
command goes on after whatever stopped it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_guidino.bounds import COUNT
from nnunetv2_guidino.commands.options import add_device, whole
from nnunetv2_guidino.lab.benchmark.matrix import presets
from nnunetv2_guidino.lab.benchmark.run_matrix import LAUNCHERS, Launch, benchmark
from nnunetv2_guidino.lab.benchmark.slurm import Slurm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `guidino benchmark`."""
    named = ", ".join(presets())
    parser.add_argument("matrix", help=f"a YAML file (docs/reference/benchmark_matrix.md), or a preset: {named}")
    parser.add_argument("-d", dest="datasets", nargs="+", metavar="DATASET", help="in place of the matrix's data sets")
    parser.add_argument("-o", dest="output", type=Path, metavar="DIR", help="default: guidino_benchmark/NAME")
    add_device(parser, default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="only print the commands and their number")
    parser.add_argument(
        "--launcher", choices=LAUNCHERS, default="local", help="commands: write a shell script. Default: local"
    )
    parser.add_argument(
        "--jobs", type=whole(COUNT), metavar="N", help="at once on this machine. Default: one on each GPU; on a CPU 1"
    )
    parser.add_argument("-np", type=whole(COUNT), metavar="N", help="processes of planning and preprocessing")
    slurm = parser.add_argument_group("for each training, with --launcher slurm")
    slurm.add_argument("--partition", metavar="NAME")
    slurm.add_argument(
        "--gpus", type=int, choices=range(0, 9), metavar="N", help="default: 1 with -device cuda, else 0"
    )
    slurm.add_argument(
        "--minutes",
        type=whole(COUNT),
        default=1440,
        help="time limit, at which it is requeued and resumes (default: 1440)",
    )
    slurm.add_argument("--cpus", type=whole(COUNT), default=8, metavar="N", help="cores (default: %(default)s)")
    slurm.add_argument("--memory", type=whole(COUNT), metavar="GB")
    slurm.add_argument("--at-once", type=whole(COUNT), default=256, metavar="N", help="of the array (default: 256)")


def run(args: argparse.Namespace) -> int:
    """Run it; 1 if a training failed."""
    slurm = Slurm(args.partition, args.gpus, args.minutes, args.cpus, args.memory, args.at_once)
    launch = Launch(args.launcher, args.device, args.jobs, args.np, slurm)
    outcome = benchmark(args.matrix, args.output, datasets=args.datasets, launch=launch, dry_run=args.dry_run, log=_log)
    if outcome.failed:
        print(f"{len(outcome.failed)} of {len(outcome.jobs)} trainings failed; the same command tries them again")
    if outcome.written:
        print(outcome.written)
    return int(bool(outcome.failed))


def _log(line: str) -> None:
    print(line, flush=True)
