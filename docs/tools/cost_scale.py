"""Measure how a step's memory grows with patch, batch, encoder and slices; write docs/benchmarks/cost_scale.*.

    PYTHONPATH=tests/support python docs/tools/cost_scale.py

The networks are a small planned network and encoders with random weights, on the CPU. The exponent is the slope of a
straight line through the logarithms.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import planned
from matplotlib.figure import Figure

from nnunetv2_guidino.lab.cost.fresh import in_fresh_process
from nnunetv2_guidino.lab.cost.random_training import Training
from nnunetv2_guidino.lab.cost.timing import GUIDED, LORA, PLAIN, TRAINERS

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "cost_scale.json"
SMALL, BASE = "facebook/dinov2-small", "facebook/dinov2-base"
DATASET_JSON = {
    "channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "polyp": 1}, "file_ending": ".png",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One measurement.

    Args:
        size: Value of the quantity that varies; the exponent is fitted against it.
    """

    size: int
    patch: tuple[int, ...] = (256, 256)
    batch: int = 2
    encoder: str = SMALL


SWEEPS = {  # with sizes to which the guide's input is not enlarged
    "pixels of the patch": [Point(side**2, (side, side)) for side in (256, 320, 384)],
    "batch": [Point(batch, batch=batch) for batch in (2, 4, 8)],
    "parameters of the encoder": [Point(22_000_000), Point(86_500_000, encoder=BASE)],
    "slices": [Point(depth, (depth, 64, 64), batch=1) for depth in (4, 8, 16)],
}


def measure_all() -> dict[str, list[dict[str, Any]]]:
    """Return the MiB of each network at each point of each sweep."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plans.json"
        file.with_name("dataset.json").write_text(json.dumps(DATASET_JSON))
        return {name: [{"size": p.size, **measure_point(p, file)} for p in points] for name, points in SWEEPS.items()}


def measure_point(point: Point, file: Path) -> dict[str, Any]:
    """Return the peak memory of two steps in MiB, by network."""
    guide = {"encoder": point.encoder, "max_input_size": None}  # with a limit, the encoder's memory would not grow
    plans = planned.plans(guide, patch_size=point.patch).plans
    (configuration,) = plans["configurations"]
    plans["configurations"][configuration]["batch_size"] = point.batch
    file.write_text(json.dumps(plans))
    peaks = {
        network: in_fresh_process(Training(file, configuration, name), steps=2).peak_bytes
        for network, name in TRAINERS.items()
    }
    memory = {network: None if peak is None else peak / 2**20 for network, peak in peaks.items()}
    print(point, memory, flush=True)
    return {"memory": memory}


def curves(points: list[dict[str, Any]]) -> Iterator[tuple[str, list[float]]]:
    """Yield the fitted values: the MiB of each guided network beyond the plain network."""
    for network in (GUIDED, LORA):
        yield network, [point["memory"][network] - point["memory"][PLAIN] for point in points]


def exponent(sizes: list[float], values: list[float]) -> float:
    """Return the slope of log(values) against log(sizes)."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-9)), 1)[0])


def table() -> str:
    """Return a table of the exponents, with a row for each sweep."""
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    names = [f"MiB beyond plain, {network}" for network, _ in curves(next(iter(content.values())))]
    lines = ["| grows with | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for name, points in content.items():
        sizes = [point["size"] for point in points]
        cells = [f"{exponent(sizes, values):.2f}" for _, values in curves(points)]
        lines.append(f"| {name} ({', '.join(f'{size:,}' for size in sizes)}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(content: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """Draw a panel for each sweep."""
    figure = Figure(figsize=(14, 3.2), layout="constrained")
    panels = figure.subplots(1, len(content))
    for axes, (name, points) in zip(panels, content.items(), strict=True):
        sizes = [point["size"] for point in points]
        for network, values in curves(points):
            axes.loglog(sizes, values, "o-", label=f"{network}: {exponent(sizes, values):.2f}")
        axes.set(xlabel=name, ylabel="MiB beyond plain")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xticks([], minor=True)
        axes.legend(fontsize=7, title="exponent", title_fontsize=7)
    figure.savefig(file, dpi=100)


if __name__ == "__main__":
    measured = measure_all()
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    draw(measured, RESULTS.with_suffix(".png"))
