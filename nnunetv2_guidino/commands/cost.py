"""Measure what a guide costs on your own plans and device: a training step, prediction, memory, start-up, each beside
the plain network's and the encoder's alone. Only plans and dataset.json are read, and no weights are needed.
"""

from __future__ import annotations

import argparse

from nnunetv2_guidino.commands.options import count, device
from nnunetv2_guidino.commands.signature import Option, options_of

add_arguments = options_of(
    "nnunetv2_guidino.lab.cost.timing:measure",
    "nnunetv2_guidino.lab.cost.cost_report:write_report",
    dataset="-d DATASET",
    configuration="-c CONFIGURATION",
    plans="-p PLANS",
    beside="--beside PLANS",
    device=device,
    rounds=Option("--rounds N", type=count),
    folder=Option("-o DIR", default=None, help="write cost.txt, cost.csv, cost.json and cost.png there"),
)


def run(args: argparse.Namespace) -> None:
    """Measure, print the table and write it."""
    from nnunetv2_guidino.lab.cost.cost_report import table, title, write_report
    from nnunetv2_guidino.lab.cost.timing import measure

    output = vars(args).pop("folder")
    costs = measure(**vars(args))
    print(f"{title(costs)}\n\n{table(costs)}")
    if output:
        write_report(costs, output)
        print(f"\nWrote {output}/cost.txt, cost.csv, cost.json and cost.png")
