"""What `guidino cost` shows: a table, the same as CSV, everything as JSON, and a bar chart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import kendalltau, quantile_test

from nnunetv2_guidino.files import filled_folder, read_json
from nnunetv2_guidino.lab.cost.timing import ENCODER, MEASURES, PLAIN, Costs, Key
from nnunetv2_guidino.printable import align


class Ratio(NamedTuple):
    """Median over the rounds of a ratio taken round by round, and the 95 % interval of that median."""

    median: float
    low: float
    high: float


class Row(NamedTuple):
    """One line of the table: medians over the rounds, and ratios.

    `plain` is × the plain network of the first plans, `limit` × the sum of plain network and encoder of the same plans,
    `passes` passes of the encoder beyond that plain network. They are None where there is nothing to compare with,
    where the rounds are too few for an interval, and where the measure drifts.
    """

    key: Key
    median: float
    quartiles: tuple[float, float]
    plain: Ratio | None
    limit: Ratio | None
    passes: Ratio | None


def rows(costs: Costs) -> list[Row]:
    """A row for each network and measure."""
    first = next(iter(costs.about["plans"]))
    found = []
    drifting = {name for name in MEASURES if drifts(costs, name)}
    for key, values in costs.values.items():
        of_itself = key.network in (PLAIN, ENCODER)
        timed = key.measure not in ("memory", "start")
        plain = costs.against(key, [PLAIN], first)
        limit = costs.against(key, [PLAIN, ENCODER]) if timed and not of_itself else None
        passes = costs.encoder_passes(key) if timed and not of_itself else None
        low, high = np.percentile(values, (25, 75))
        ratios = (None if key.measure in drifting else _ratio(values) for values in (plain, limit, passes))
        found.append(Row(key, median(values), (low, high), *ratios))
    return found


def drifts(costs: Costs, measure: str) -> bool:
    """Whether the rounds of a measure became faster or slower: Kendall's test on their totals gives p < 0.1."""
    of_rounds = np.array([values for key, values in costs.values.items() if key.measure == measure])
    totals = of_rounds.sum(0) if len(of_rounds) else []
    return len(totals) > 2 and bool(kendalltau(range(len(totals)), totals).pvalue < 0.1)


def _ratio(values: list[float] | None) -> Ratio | None:
    """Give the interval by order statistics, which needs six rounds; None with fewer."""
    if values is None:
        return None
    low, high = quantile_test(values, p=0.5).confidence_interval(0.95)
    return None if math.isnan(low) else Ratio(median(values), low, high)


def table(costs: Costs) -> str:
    """Columns of text under a heading for each measure."""
    head = ("network", "median", "quartiles", "× plain", "× (plain + encoder)", "encoder passes beyond plain")
    parts = []
    of_rows = rows(costs)
    for name, (meaning, unit) in MEASURES.items():
        lines = [_line(row, unit) for row in of_rows if row.key.measure == name]
        if lines:
            drift = "; the rounds drift, so there are no ratios" if drifts(costs, name) else ""
            parts.append(f"{name}: {meaning}, {unit}{drift}\n" + align([head, *lines]))
    return "\n\n".join([*parts, _parts_of_step(costs)])


def _parts_of_step(costs: Costs) -> str:
    if "parts" not in costs.about:
        return "The parts of a step (encoder, gates, loss terms, picture) are measured on a GPU only; go by the ratios."
    seconds = (f"{name} {value:.4f} s" for name, value in costs.about["parts"].items())
    return "What a guide adds to a step, eager: " + ", ".join(seconds)


def _line(row: Row, unit: str) -> tuple[str, ...]:
    digits = 0 if unit == "MiB" else 3
    spread = " – ".join(f"{value:.{digits}f}" for value in row.quartiles)
    ratios = ("" if r is None else f"{r.median:.2f} ({r.low:.2f} to {r.high:.2f})" for r in row[3:])
    return f"{row.key.plans}, {row.key.network}", f"{row.median:.{digits}f}", spread, *ratios


def title(costs: Costs) -> str:
    """What was measured where, in one line."""
    about = costs.about
    first = next(iter(about["plans"].values()))
    patch = "×".join(map(str, first["patch_size"]))
    where = f"{about['device']}, {about['threads']} threads" if about["device"] == "cpu" else about["device"]
    return (
        f"{about['dataset']} {about['configuration']}: patch {patch}, batch {first['batch_size']}; "
        f"{about['machine']} ({where}), {about['rounds']} rounds, {about['date']}"
    )


def write_report(costs: Costs, folder: Path) -> None:
    """cost.txt, cost.csv, cost.json and cost.png.

    Raises:
        GuidinoError: If they cannot be written; those of before are there then.
    """
    with filled_folder(folder) as new:
        (new / "cost.txt").write_text(f"{title(costs)}\n\n{table(costs)}\n", encoding="utf-8")
        (new / "cost.csv").write_text("\n".join(_csv(costs)) + "\n", encoding="utf-8")
        (new / "cost.json").write_text(json.dumps(as_json(costs), indent=1) + "\n", encoding="utf-8")
        draw(costs, new / "cost.png")


def _csv(costs: Costs) -> Iterator[str]:
    names = ("times_plain", "times_limit", "encoder_passes")
    columns = [name + ending for name in names for ending in ("", "_low", "_high")]
    yield ",".join(["measure,unit,plans,network,median,lower_quartile,upper_quartile", *columns])
    for row in rows(costs):
        ratios = (number for ratio in row[3:] for number in ratio or (None, None, None))
        numbers = (row.median, *row.quartiles, *ratios)
        cells = ("" if number is None else f"{number:.6g}" for number in numbers)
        network = row.key.network.replace(",", "")
        yield ",".join([row.key.measure, MEASURES[row.key.measure][1], row.key.plans, network, *cells])


def as_json(costs: Costs) -> dict[str, Any]:
    """All that was measured, and on what."""
    return {**costs.about, "values": [{**key._asdict(), "values": values} for key, values in costs.values.items()]}


def read_costs(file: Path) -> Costs:
    """What `write_report` wrote into cost.json; raises GuidinoError if it cannot be read."""
    content = read_json(file, dict)
    values = {Key(row["measure"], row["plans"], row["network"]): row["values"] for row in content.pop("values")}
    return Costs(content, values)


def draw(costs: Costs, file: Path) -> None:
    """A panel for each steady measure, a bar for each network, a line where plain network and encoder together end."""
    of_rows = rows(costs)
    measured = {row.key.measure for row in of_rows}
    names = [name for name in MEASURES if name in measured and not drifts(costs, name)]
    bars = max(sum(row.key.measure == name for row in of_rows) for name in names)
    figure = Figure(figsize=(12, 1.6 + 0.5 * bars), layout="constrained")
    panels = figure.subplots(2, -(-len(names) // 2), squeeze=False).flat
    for name, axes in zip(names, panels, strict=False):
        _draw_bars(axes, [row for row in of_rows if row.key.measure == name])
        axes.set_title(fill(", ".join(MEASURES[name][:2]), width=28), fontsize=9)
    for axes in panels:  # one may be left over
        axes.set_axis_off()
    figure.suptitle(title(costs), fontsize=9, parse_math=False)
    figure.savefig(file, dpi=120)


def _draw_bars(axes: Any, of_rows: Sequence[Row]) -> None:
    medians = [row.median for row in of_rows]
    errors = np.abs(np.transpose([row.quartiles for row in of_rows]) - medians)
    networks = [PLAIN, ENCODER, "guided", "guided, LoRA"]
    colours = [f"C{networks.index(row.key.network)}" for row in of_rows]
    places = range(len(of_rows))
    axes.barh(places, medians, xerr=errors, color=colours)
    axes.set_yticks(places, [f"{row.key.plans}, {row.key.network}" for row in of_rows], fontsize=7, parse_math=False)
    axes.tick_params(axis="x", labelsize=7)
    axes.invert_yaxis()
    for place, row in zip(places, of_rows, strict=True):
        if row.limit is not None:
            axes.plot([row.median / row.limit.median] * 2, [place - 0.45, place + 0.45], "k:", linewidth=1.5)
