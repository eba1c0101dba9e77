"""The tables of docs/explanation/cost.md, from what tests/support/cost_cases.py and cost_scale.py measured.

python tests/support/cost_page.py
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import cost_scale

from nnunetv2_guidino.cost.measure import ENCODER, GUIDED, LORA, PLAIN, Costs, Key
from nnunetv2_guidino.cost.report import Row, read_costs, rows, title

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "explanation" / "cost.md"
BEGIN, END = "<!-- tables: python tests/support/cost_page.py -->\n", "<!-- end of the tables -->\n"
CASES = {
    "2d_256": "256², batch 4, as in the paper",
    "2d_512": "512², batch 2",
    "3d": "volumes of 8×128×128, batch 2",
}


def tables() -> str:
    """What each case measured, and what became of the targets."""
    found = {name: read_costs(file) for name in CASES if (file := DOCS / "benchmarks" / f"cost_{name}.json").exists()}
    if not found:
        return "No case has been measured yet.\n"
    parts = ["### Against the targets", targets({name: costs for name, costs in found.items() if name != "3d"})]
    for name, costs in found.items():
        picture = f"![Bars of each network's time and memory](../benchmarks/cost_{name}.png)"
        parts += [f"### {CASES[name][0].upper()}{CASES[name][1:]}", title(costs) + ".", case_table(costs), picture]
    if cost_scale.RESULTS.exists():
        parts += ["### Scale", cost_scale.table(), "![Time and memory against size](../benchmarks/cost_scale.png)"]
    return "\n\n".join(parts) + "\n"


def case_table(costs: Costs) -> str:
    """A row for each network: medians, and × the plain network."""
    by_key = {row.key: row for row in rows(costs)}
    lines = [
        "| network | step | tile | mirrored | five folds | memory of a step | start | "
        "steps in the time of 100 plain ones |",
        "|" + "---|" * 8,
    ]
    for _, plans, network in dict.fromkeys(key for key in by_key if key.measure == "step"):
        cells = [_cell(by_key.get(Key(name, plans, network))) for name in ("step", "tile", "image", "folds")]
        memory, start = (by_key.get(Key(name, plans, network)) for name in ("memory", "start"))
        cells.append("–" if memory is None else f"{memory.median:,.0f} MiB")
        cells.append("–" if start is None else f"{start.median:.1f} s")
        step = by_key[Key("step", plans, network)]
        cells.append("–" if network == ENCODER or not step.plain else f"{100 / step.plain:.0f}")
        lines.append(f"| {plans}, {network} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    return f"{row.median:.3g} s" + ("" if row.plain is None or row.key.network == PLAIN else f" ({row.plain:.2f} ×)")


def targets(found: dict[str, Costs]) -> str:
    """A row for each target, a column for each case."""
    lines = ["| target | " + " | ".join(CASES[name] for name in found) + " |", "|" + "---|" * (len(found) + 1)]
    for text, value, limit, form in TARGETS:
        cells = []
        for costs in found.values():
            reached = value(costs)
            cells.append(f"{form.format(reached)}{', reached' if reached <= limit else ''}")
        lines.append(f"| {text} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _row(costs: Costs, measure: str, network: str) -> Row:
    plans = next(iter(costs.about["plans"]))
    return next(row for row in rows(costs) if row.key == Key(measure, plans, network))


def _times_plain(measure: str):
    return lambda costs: _row(costs, measure, GUIDED).plain


def _memory_beyond_weights(costs: Costs) -> float:
    plans, about = next(iter(costs.about["plans"].items()))
    plain, guided = (costs.values[Key("memory", plans, network)] for network in (PLAIN, GUIDED))
    return (median(guided) - median(plain)) / about["encoder_mib"]


def _start_beyond_plain(costs: Costs) -> float:
    return _row(costs, "start", GUIDED).median - _row(costs, "start", PLAIN).median


TARGETS = [
    ("guided step ≤ 1.10 × plain", _times_plain("step"), 1.10, "{:.2f} ×"),
    ("tile ≤ 1.30 × plain", _times_plain("tile"), 1.30, "{:.2f} ×"),
    ("five folds ≤ 1.12 × plain", _times_plain("folds"), 1.12, "{:.2f} ×"),
    (
        "LoRA step ≤ plain + 3.2 encoder passes",
        lambda costs: _row(costs, "step", LORA).passes,
        3.2,
        "plain + {:.1f} passes",
    ),
    ("memory beyond plain ≤ 1.10 × encoder weights", _memory_beyond_weights, 1.10, "{:.2f} × weights"),
    ("import and construction ≤ plain + 1 s", _start_beyond_plain, 1.0, "plain + {:.1f} s"),
]


def page() -> str:
    """The page, with its tables renewed."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + tables() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
