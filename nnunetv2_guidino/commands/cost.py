"""Measure what a guide costs on your own plans and device: a training step, prediction, memory, start-up, each beside
the plain network's and the encoder's alone. Only plans and dataset.json are read, and no weights are needed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_guidino.bounds import COUNT
from nnunetv2_guidino.commands.options import add_device, whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `guidino cost`."""
    parser.add_argument("-d", dest="dataset", metavar="DATASET", required=True, help="name or number")
    parser.add_argument("-c", dest="configuration", default="2d", help="default: %(default)s")
    parser.add_argument(
        "-p",
        dest="plans",
        nargs="+",
        default=["nnUNetPlans"],
        metavar="PLANS",
        help="measured plain, guided and with LoRA (default: nnUNetPlans); all is compared with the first one's plain",
    )
    parser.add_argument(
        "--beside",
        nargs="+",
        default=[],
        metavar="PLANS",
        help="further plans, measured without a guide: what else could be done with the time",
    )
    parser.add_argument(
        "--rounds",
        type=whole(COUNT),
        default=20,
        metavar="N",
        help="how often each is timed (default: %(default)s); with fewer than 6 there are no ratios",
    )
    parser.add_argument(
        "-o", dest="output", metavar="DIR", type=Path, help="write cost.txt, cost.csv, cost.json and cost.png there"
    )
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    """Measure, print the table and write it."""
    from nnunetv2_guidino.lab.cost.cost_report import table, title, write_report
    from nnunetv2_guidino.lab.cost.timing import measure

    costs = measure(
        dataset=args.dataset,
        configuration=args.configuration,
        plans=args.plans,
        beside=args.beside,
        device=args.device,
        rounds=args.rounds,
    )
    print(f"{title(costs)}\n\n{table(costs)}")
    if args.output:
        write_report(costs, args.output)
        print(f"\nWrote {args.output}/cost.txt, cost.csv, cost.json and cost.png")
