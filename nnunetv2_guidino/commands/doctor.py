"""Report how nnU-Net finds the trainer, which versions, devices and paths are in force, and what to put right. With
--train, check that trainings and predictions work on a device.
"""

from __future__ import annotations

import argparse

from nnunetv2_guidino.commands.options import add_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `guidino doctor`."""
    parser.add_argument(
        "--train", action="store_true", help="train and predict for some minutes with random weights and made-up images"
    )
    parser.add_argument("--all", action="store_true", help="with --train: volumes and two GPUs too")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Print what is found, one line each; 1 if anything is wrong."""
    if args.train:
        from nnunetv2_guidino.devices import usable_device
        from nnunetv2_guidino.tools.doctor.gpu_check import examine_training

        findings = examine_training(usable_device(args.device), args.all)
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
