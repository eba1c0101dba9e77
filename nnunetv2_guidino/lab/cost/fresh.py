"""Measure the start and the memory of a training in a process of its own.

    python -m nnunetv2_guidino.lab.cost.fresh PLANS_FILE CONFIGURATION TRAINER DEVICE STEPS

prints the measurements as JSON. This module imports nothing heavy before it starts the clock.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nnunetv2_guidino.errors import GuidinoError

if TYPE_CHECKING:
    from nnunetv2_guidino.lab.cost.random_training import Training

NNUNETS_OWN = "nnUNetTrainer"
# glibc keeps freed tensors of less than 32 MB for others of that size, which may never come: with LoRA the resident set
# of a training on the CPU is up to 1.8 times the size of its tensors. With this setting glibc returns tensors of 64 KB
# and more to the system.
MALLOC_SETTINGS = {"MALLOC_MMAP_THRESHOLD_": "65536"}


class Fresh(NamedTuple):
    """The measurements of one process."""

    start_seconds: float  # the import of the trainer and all that nnU-Net needs, and the trainer's initialization
    peak_bytes: int | None  # the steps' peak beyond the memory after the import; None without a step or a counter


def in_fresh_process(training: Training, steps: int = 0) -> Fresh:
    """Build a trainer in a process of its own, and make some steps with it.

    Raises:
        GuidinoError: If the process fails, with the last line of its output.
    """
    where = [str(training.plans_file), training.configuration, training.trainer, training.device]
    command = [sys.executable, "-m", __spec__.name, *where, str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **MALLOC_SETTINGS})
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it was ended, perhaps for want of memory"])[-1]
        raise GuidinoError(
            f"{training.trainer} on {training.plans_file}, in a process of its own "
            f"(exit code {done.returncode}): {last.removeprefix('nnunetv2-guidino: error: ')}"
        )
    return Fresh(*json.loads(done.stdout.splitlines()[-1]))


def measure_here(plans_file: str, configuration: str, trainer: str, device: str, steps: str) -> Fresh:
    """Measure in this process, which must have imported nothing heavy so far."""
    start = time.perf_counter()
    import_trainer(trainer)
    imported = time.perf_counter()
    from nnunetv2_guidino.lab.cost.random_training import Training, build_trainer, dummy_batch

    before = _memory(device, peak=False)
    building = time.perf_counter()
    built = build_trainer(Training(Path(plans_file), configuration, trainer, device))
    constructed = time.perf_counter()
    batch = dummy_batch(built)
    for _ in range(int(steps)):
        built.train_step(batch)
    after = _memory(device, peak=True)
    memory = None if before is None or after is None or steps == "0" else after - before
    return Fresh(imported - start + constructed - building, memory)


def import_trainer(name: str) -> None:
    """Import nnU-Net's own trainer or one of ours, and nothing that it does not need."""
    if name == NNUNETS_OWN:
        importlib.import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    else:
        from nnunetv2_guidino.training.naming import trainer_class

        trainer_class(name)


def _memory(device: str, peak: bool) -> int | None:
    """Return the bytes of this process now, or their peak so far, without mapped files such as libraries.

    None on a device whose memory nothing counts.
    """
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() if peak else 0
    status = Path("/proc/self/status")
    if device != "cpu" or not status.exists():
        return None
    lines = (line.split() for line in status.read_text().splitlines() if line.endswith(" kB"))
    size = {name: int(kilobytes) * 1024 for name, kilobytes, _ in lines}
    # getrusage would count the memory that the parent held when it forked
    return size["VmHWM:"] - size["RssFile:"] if peak else size["RssAnon:"]


if __name__ == "__main__":
    print(json.dumps(measure_here(*sys.argv[1:])))
