"""Report how nnU-Net finds the trainer, which versions, devices and paths are in force, and what to put right. With
--train, check that trainings and predictions work on a device.
"""

from __future__ import annotations

import argparse

from nnunetv2_guidino.commands.options import torch_device
from nnunetv2_guidino.commands.signature import Option, options_of
from nnunetv2_guidino.errors import GuidinoError

add_arguments = options_of(
    "nnunetv2_guidino.tools.doctor.gpu_check:examine_training",
    train=Option(
        "--train",
        action="store_true",
        default=False,
        help="train and predict for some minutes with random weights and made-up images",
    ),
    everything=Option("--all", help="with --train: volumes and two GPUs too"),
    device=torch_device,
)


def run(args: argparse.Namespace) -> int:
    """Print the findings, one line each; return 1 if anything is wrong."""
    if args.everything and not args.train:
        raise GuidinoError("--all is for trainings; give --train too")
    if args.train:
        from nnunetv2_guidino.devices import usable_device
        from nnunetv2_guidino.tools.doctor.gpu_check import examine_training

        findings = examine_training(usable_device(args.device), args.everything)
    else:
        from nnunetv2_guidino.tools.doctor.installation import examine

        findings = examine()
    wrong = 0
    for finding in findings:
        print(f"[{'ok' if finding.remedy is None else '!!'}] {finding.what}: {finding.is_so}", flush=True)
        if finding.remedy is not None:
            wrong += 1
            print(f"     -> {finding.remedy}", flush=True)
    print("Everything is in place." if not wrong else f"{wrong} to put right.")
    return int(wrong > 0)
