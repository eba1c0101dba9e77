"""How a step's time and memory grow with patch, batch, encoder and slices. Writes docs/benchmarks/cost_scale.*.

    python tests/support/cost_scale.py

A small planned network beside encoders with random weights, on the CPU; some ten minutes on two cores that have nothing
else to do. The exponent is the slope of a straight line through the logarithms.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import planned
import torch
from matplotlib.figure import Figure

from nnunetv2_guidino.cost.fresh import in_fresh_process
from nnunetv2_guidino.cost.measure import ENCODER, GUIDED, LORA, PLAIN, TRAINERS, Key, interleaved
from nnunetv2_guidino.cost.networks import BareEncoder, Training, build_trainer, dummy_batch

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "cost_scale.json"
ROUNDS = 3
SMALL, BASE = "facebook/dinov2-small", "facebook/dinov2-base"
DATASET_JSON = {
    "channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "polyp": 1}, "file_ending": ".png",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One size.

    Args:
        size: What is varied; the exponent is fitted against it.
    """

    size: int
    patch: tuple[int, ...] = (256, 256)
    batch: int = 2
    encoder: str = SMALL


SWEEPS = {  # of sizes to which the guide's input is not enlarged
    "pixels of the patch": [Point(side**2, (side, side)) for side in (256, 320, 384)],
    "batch": [Point(batch, batch=batch) for batch in (2, 4, 8)],
    "parameters of the encoder": [Point(22_000_000), Point(86_500_000, encoder=BASE)],
    "slices": [Point(depth, (depth, 64, 64), batch=1) for depth in (4, 8, 16)],
}
NETWORKS = (PLAIN, ENCODER, GUIDED, LORA)


def measure_all() -> dict[str, list[dict[str, Any]]]:
    """Seconds and MiB of each network at each point of each sweep."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plans.json"
        file.with_name("dataset.json").write_text(json.dumps(DATASET_JSON))
        return {name: [{"size": p.size, **measure_point(p, file)} for p in points] for name, points in SWEEPS.items()}


def measure_point(point: Point, file: Path) -> dict[str, Any]:
    """Seconds of a step, and MiB, by network."""
    guide = {"encoder": point.encoder, "max_input_size": None}  # a bound would hide how the encoder grows
    plans = planned.plans(guide, patch_size=point.patch).plans
    (configuration,) = plans["configurations"]
    plans["configurations"][configuration]["batch_size"] = point.batch
    file.write_text(json.dumps(plans))
    actions, memory = {}, {}
    for network, name in TRAINERS.items():
        training = Training(file, configuration, name)
        peak = in_fresh_process(training, steps=2).peak_bytes
        memory[network] = None if peak is None else peak / 2**20
        trainer = build_trainer(training)
        batch = dummy_batch(trainer)
        actions[Key("step", "", network)] = partial(trainer.train_step, batch)
        if network == GUIDED:
            actions[Key("step", "", ENCODER)] = partial(BareEncoder(trainer), batch["data"], training=True)
    seconds = interleaved(actions, ROUNDS, torch.device("cpu"))
    print(point, {key.network: round(median(values), 3) for key, values in seconds.items()}, memory, flush=True)
    return {"seconds": {key.network: median(values) for key, values in seconds.items()}, "memory": memory}


def curves(points: list[dict[str, Any]]) -> Iterator[tuple[str, str, list[float]]]:
    """What is fitted: of each network its seconds, and what it holds and takes beyond the plain one."""
    for network in NETWORKS:
        yield "seconds", network, [point["seconds"][network] for point in points]
    for network in (GUIDED, LORA):
        yield "MiB beyond plain", network, [p["memory"][network] - p["memory"][PLAIN] for p in points]


def exponent(sizes: list[float], values: list[float]) -> float:
    """Slope of log(values) against log(sizes)."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-9)), 1)[0])


def table() -> str:
    """The exponents, a row for each sweep."""
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    names = [f"{what}, {network}" for what, network, _ in curves(next(iter(content.values())))]
    lines = ["| grows with | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for name, points in content.items():
        sizes = [point["size"] for point in points]
        cells = [f"{exponent(sizes, values):.2f}" for *_, values in curves(points)]
        lines.append(f"| {name} ({', '.join(f'{size:,}' for size in sizes)}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(content: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """Seconds above, memory below; a column for each sweep."""
    figure = Figure(figsize=(14, 6), layout="constrained")
    panels = figure.subplots(2, len(content))
    for column, (name, points) in zip(panels.T, content.items(), strict=True):
        sizes = [point["size"] for point in points]
        for what, network, values in curves(points):
            axes = column[0 if what == "seconds" else 1]
            label = f"{network}: {exponent(sizes, values):.2f}"
            axes.loglog(sizes, values, "o-", color=f"C{NETWORKS.index(network)}", label=label)
            axes.set(xlabel=name, ylabel=what)
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axes.set_xticks([], minor=True)
            axes.legend(fontsize=7, title="exponent", title_fontsize=7)
    figure.savefig(file, dpi=100)


if __name__ == "__main__":
    measured = measure_all()
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    draw(measured, RESULTS.with_suffix(".png"))
