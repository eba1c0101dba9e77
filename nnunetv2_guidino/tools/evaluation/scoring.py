"""Scores of many cases in parallel. Each process imports this module, so it imports little."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.configuration import default_num_processes

from nnunetv2_guidino.nnunet.images import stored_pixels
from nnunetv2_guidino.tools.evaluation.cases import PredictedCase
from nnunetv2_guidino.tools.evaluation.metrics import Empty, class_metrics
from nnunetv2_guidino.tools.evaluation.reading import PairReader
from nnunetv2_guidino.tools.evaluation.scored_labels import as_tuple
from nnunetv2_guidino.workers import map_cases

# Memory of a process: its libraries, and the bytes per pixel of a mask that is nearly all surface. Most masks need a
# fourth of that (tests/tools/evaluation/test_memory.py).
PROCESS_BYTES = 300 << 20
PIXEL_BYTES = 40
CONTROL_GROUPS = [
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
]


@dataclass(frozen=True)
class Scorer:
    """Scores one case; every process gets a copy."""

    pairs: PairReader
    empty: Empty
    nsd_tolerance: float | None  # None is one pixel, the case's smallest spacing

    def __call__(self, case: PredictedCase) -> dict[str, Any]:
        """Return the case's entry in metric_per_case of summary.json."""
        reference, prediction, spacing = self.pairs.read(case)
        labels = self.pairs.labels
        valid = None if labels.ignore is None else reference != labels.ignore
        number = reference.size if valid is None else int(np.count_nonzero(valid))
        tolerance = min(spacing) if self.nsd_tolerance is None else self.nsd_tolerance
        metrics = {}
        for values in labels.classes.values():
            # numpy's default kind needs six times as much memory
            masks = [np.isin(array, as_tuple(values), kind="sort") for array in (reference, prediction)]
            if valid is not None:
                masks = [mask & valid for mask in masks]
            scores = class_metrics(masks[0], masks[1], spacing, tolerance, self.empty)
            scores["TN"] = number - scores["TP"] - scores["FP"] - scores["FN"]
            metrics[str(values)] = scores
        entry = {"case": case.name, "reference_file": str(case.reference), "prediction_file": str(case.prediction)}
        return entry | ({"fold": case.fold} if case.fold else {}) | {"metrics": metrics}


def score_cases(scorer: Scorer, cases: Sequence[PredictedCase], processes: int | None = None) -> list[dict[str, Any]]:
    """Score the cases in parallel with a progress bar; return the scores in order.

    Args:
        processes: The default is nnU-Net's number, or fewer if there are few cores or little memory.

    Raises:
        GuidinoError: For the first case that cannot be scored, or if a process died.
    """
    return map_cases(scorer, cases, processes or affordable_processes(cases), "evaluate")


def affordable_processes(cases: Sequence[PredictedCase]) -> int:
    """Return the number of processes to start: nnU-Net's number, or fewer if cores or memory do not suffice."""
    wanted = min(default_num_processes, os.cpu_count() or 1, len(cases))
    memory = available_memory()
    if wanted == 1 or memory is None:
        return wanted
    largest = max(0, *(stored_pixels(case.reference) for case in cases))
    return max(1, min(wanted, memory // (PROCESS_BYTES + PIXEL_BYTES * largest)))


def available_memory() -> int | None:
    """Return the bytes of memory that the machine and the container leave free; None if neither is known."""
    found = []
    with suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    for limit, used in CONTROL_GROUPS:
        with suppress(OSError, ValueError):  # another version of control groups, or no limit
            found.append(max(0, int(Path(limit).read_text()) - int(Path(used).read_text())))
    return min(found, default=None)
