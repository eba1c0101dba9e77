"""Report how nnU-Net finds the trainer, which versions, devices and paths are in force, and what to put right."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is nothing to choose."""
    del parser


def run(args: argparse.Namespace) -> int:
    """Print what is found, one line each; 1 if anything is wrong."""
    from nnunetv2_guidino.doctor.examine import examine

    del args
    wrong = 0
    for finding in examine():
        print(f"[{'ok' if finding.remedy is None else '!!'}] {finding.what}: {finding.is_so}", flush=True)
        if finding.remedy is not None:
            wrong += 1
            print(f"     -> {finding.remedy}", flush=True)
    print("Everything is in place." if not wrong else f"{wrong} to put right.")
    return int(wrong > 0)
