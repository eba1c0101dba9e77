"""What a training takes before its first step, and its memory, each time in a process of its own.

    python -m nnunetv2_guidino.lab.cost.fresh PLANS_FILE CONFIGURATION TRAINER DEVICE STEPS

prints it as JSON. Nothing heavy is imported before the clock is started.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.doctor.trainer_import import imported_trainer

if TYPE_CHECKING:
    from nnunetv2_guidino.tools.doctor.random_training import Training

# glibc keeps freed tensors of less than 32 MB for others of that size, which may never come: with LoRA the resident set
# of a training on the CPU is up to 1.8 times what its tensors hold. Those from 64 KB on go back to the system here.
COUNTABLE = {"MALLOC_MMAP_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Fresh:
    """Of one process.

    Args:
        import_seconds: To import the trainer with all that nnU-Net needs.
        construction_seconds: From there to an initialized trainer.
        peak_bytes: Most that all steps together held at once, beyond the process that had only imported. On a GPU it is
            torch's own count. None where no step was made, or nothing counts.
    """

    import_seconds: float
    construction_seconds: float
    peak_bytes: int | None

    @property
    def start_seconds(self) -> float:
        """Both together."""
        return self.import_seconds + self.construction_seconds


def in_fresh_process(training: Training, steps: int = 0) -> Fresh:
    """Build a trainer in a process of its own, and make some steps with it.

    Raises:
        GuidinoError: If the process fails, with the last that it said.
    """
    where = [str(training.plans_file), training.configuration, training.trainer, training.device]
    command = [sys.executable, "-m", __spec__.name, *where, str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **COUNTABLE})
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it was ended, perhaps for want of memory"])[-1]
        raise GuidinoError(
            f"{training.trainer} on {training.plans_file}, in a process of its own "
            f"(exit code {done.returncode}): {last.removeprefix('nnunetv2-guidino: error: ')}"
        )
    return Fresh(**json.loads(done.stdout.splitlines()[-1]))


def measure_here(plans_file: str, configuration: str, trainer: str, device: str, steps: str) -> Fresh:
    """Measure in this process, which must have imported nothing heavy so far."""
    start = time.perf_counter()
    imported_trainer(trainer)
    imported = time.perf_counter()
    from nnunetv2_guidino.tools.doctor.random_training import Training, build_trainer, dummy_batch

    before = _held_bytes(device)
    building = time.perf_counter()
    built = build_trainer(Training(Path(plans_file), configuration, trainer, device))
    constructed = time.perf_counter()
    batch = dummy_batch(built)
    for _ in range(int(steps)):
        built.train_step(batch)
    after = _peak_bytes(device)
    memory = None if before is None or after is None or steps == "0" else after - before
    return Fresh(imported - start, constructed - building, memory)


def _held_bytes(device: str) -> int | None:
    """What this process holds, but for files that are mapped into it, such as libraries."""
    if device == "cuda":
        return 0
    status = _status(device)
    return None if status is None else status["RssAnon"]


def _peak_bytes(device: str) -> int | None:
    """Most of it that this process has held so far."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    # getrusage would count what the parent held when it forked
    status = _status(device)
    return None if status is None else status["VmHWM"] - status["RssFile"]


def _status(device: str) -> dict[str, int] | None:
    """Bytes by the names of Linux; None where there are none, or where memory is not the CPU's."""
    file = Path("/proc/self/status")
    if device != "cpu" or not file.exists():
        return None
    lines = (line.split() for line in file.read_text().splitlines() if line.endswith(" kB"))
    return {name.rstrip(":"): int(kilobytes) * 1024 for name, kilobytes, _ in lines}


if __name__ == "__main__":
    print(json.dumps(asdict(measure_here(*sys.argv[1:]))))
