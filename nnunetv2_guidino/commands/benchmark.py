"""Run a matrix of trainings (data sets × plans × trainers × folds × seeds × training cases) with nnU-Net's own
commands, and report it. The missing ones are planned, preprocessed, trained or resumed and the finished ones are kept,
so the same command goes on after any stop.
"""

from __future__ import annotations

import argparse
from functools import partial

from nnunetv2_guidino.commands.options import count, device
from nnunetv2_guidino.commands.signature import Option, options_of
from nnunetv2_guidino.lab.benchmark.matrix import presets
from nnunetv2_guidino.lists import one_of

SLURM = "for each training, with --launcher slurm"

add_arguments = options_of(
    "nnunetv2_guidino.lab.benchmark.run_matrix:benchmark",
    "nnunetv2_guidino.lab.benchmark.run_matrix:Launch",
    "nnunetv2_guidino.lab.benchmark.slurm:Slurm",
    matrix=Option("MATRIX", type=str, help=f"a YAML file (docs/reference/benchmark_matrix.md), or {one_of(presets())}"),
    datasets="-d DATASET",
    output="-o DIR",
    device=device,
    dry_run="--dry-run",
    launcher=Option("--launcher", choices=("local", "slurm", "commands")),
    jobs=Option("--jobs N", type=count),
    processes=Option("-np N", type=count),
    partition=Option("--partition NAME", group=SLURM),
    gpus=Option("--gpus N", choices=range(0, 9), group=SLURM),
    minutes=Option("--minutes N", type=count, group=SLURM),
    cpus=Option("--cpus N", type=count, group=SLURM),
    memory=Option("--memory GB", type=count, group=SLURM),
    at_once=Option("--at-once N", type=count, group=SLURM),
)


def run(args: argparse.Namespace) -> int:
    """Run it; return 1 if a training failed."""
    from nnunetv2_guidino.lab.benchmark.run_matrix import Launch, benchmark
    from nnunetv2_guidino.lab.benchmark.slurm import Slurm

    slurm = Slurm(args.partition, args.gpus, args.minutes, args.cpus, args.memory, args.at_once)
    launch, log = Launch(args.launcher, args.device, args.jobs, args.processes, slurm), partial(print, flush=True)
    outcome = benchmark(args.matrix, args.output, datasets=args.datasets, launch=launch, dry_run=args.dry_run, log=log)
    if outcome.failed:
        print(f"{len(outcome.failed)} of {len(outcome.jobs)} trainings failed; the same command tries them again")
    if outcome.written:
        print(outcome.written)
    return int(bool(outcome.failed))
