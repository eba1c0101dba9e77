"""Score many cases in parallel. The processes import this module, so it stays light."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.evaluation.cases import Case, read_pair
from nnunetv2_guidino.evaluation.labels import LabelSet, as_tuple
from nnunetv2_guidino.evaluation.metrics import class_metrics


@dataclass(frozen=True)
class Scorer:
    """Scores one case; sent to the processes."""

    reader: type
    labels: LabelSet
    empty: str
    nsd_tolerance: float | None  # None: one pixel, the smallest spacing of the case

    def __call__(self, case: Case) -> dict[str, Any]:
        """The case's entry in metric_per_case of summary.json."""
        reference, prediction, spacing = read_pair(case, self.reader, self.labels)
        valid = reference != self.labels.ignore if self.labels.ignore is not None else np.ones_like(reference, bool)
        tolerance = min(spacing) if self.nsd_tolerance is None else self.nsd_tolerance
        metrics = {}
        for values in self.labels.classes.values():
            masks = [np.isin(array, as_tuple(values)) & valid for array in (reference, prediction)]
            scores = class_metrics(masks[0], masks[1], spacing, tolerance, self.empty)
            scores["TN"] = int(np.count_nonzero(valid)) - scores["TP"] - scores["FP"] - scores["FN"]
            metrics[str(values)] = scores
        entry = {"case": case.name, "reference_file": str(case.reference), "prediction_file": str(case.prediction)}
        return entry | ({"fold": case.fold} if case.fold else {}) | {"metrics": metrics}


def score_cases(scorer: Scorer, cases: Sequence[Case], processes: int) -> list[dict[str, Any]]:
    """Score the cases in parallel, in order, with a progress bar. The first case that cannot be scored raises."""
    workers = max(1, min(processes, len(cases)))
    progress = partial(tqdm, total=len(cases), desc="evaluate", unit="case")
    if workers == 1:
        return list(progress(map(scorer, cases)))
    try:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            return list(progress(pool.map(scorer, cases, chunksize=max(1, min(16, len(cases) // workers)))))
    except BrokenProcessPool as error:
        raise GuidinoError("a process died, most likely for want of memory: try fewer with -np 1") from error
