"""Write the tables of docs/explanation/cost.md from the results of cost_cases.py and cost_scale.py.

PYTHONPATH=tests/support python docs/tools/cost_page.py

It also draws the pictures of the cases.
"""

from __future__ import annotations

from pathlib import Path

import cost_scale

from nnunetv2_guidino.lab.cost.cost_report import Row, draw, drifts, read_costs, rows, title
from nnunetv2_guidino.lab.cost.timing import PLAIN, Costs, Key

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "explanation" / "cost.md"
BEGIN = "<!-- tables: PYTHONPATH=tests/support python docs/tools/cost_page.py -->\n"
END = "<!-- end of the tables -->\n"
CASES = {
    "2d_256": "256², batch 4, as in the paper",
    "2d_512": "512², batch 2",
    "3d": "Volumes of 8×128×128, batch 2",
}


def tables() -> str:
    """Return a table and a picture of each measured case, and the table of how memory scales."""
    parts = []
    for name, title_of_case in CASES.items():
        costs = read_costs(DOCS / "benchmarks" / f"cost_{name}.json")
        picture = f"![Bars of each network's time and memory](../benchmarks/cost_{name}.png)"
        parts += [f"### {title_of_case}", title(costs) + ".", case_table(costs), picture]
    parts += ["### Scale", cost_scale.table(), "![Memory against size](../benchmarks/cost_scale.png)"]
    return "\n\n".join(parts) + "\n"


def case_table(costs: Costs) -> str:
    """Return a row for each network: the range of the rounds, and the ratio to the plain network with its interval."""
    by_key = {row.key: row for row in rows(costs)}
    lines = ["| network | step | tile | mirrored | five folds | memory of a step | start |", "|" + "---|" * 7]
    for _, plans, network in dict.fromkeys(key for key in by_key if key.measure == "step"):
        cells = [_cell(costs, by_key.get(Key(name, plans, network))) for name in ("step", "tile", "image", "folds")]
        memory, start = (by_key.get(Key(name, plans, network)) for name in ("memory", "start"))
        cells += ["–" if memory is None else f"{memory.median:,.0f} MiB", _cell(costs, start)]
        lines.append(f"| {plans}, {network} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(costs: Costs, row: Row | None) -> str:
    if row is None or drifts(costs, row.key.measure):
        return "–"
    seconds = costs.values[row.key]
    text = f"{min(seconds):.3g} to {max(seconds):.3g} s"
    if row.plain is None or row.key.network == PLAIN:
        return text
    return f"{text}; {row.plain.median:.2f} × ({row.plain.low:.2f} to {row.plain.high:.2f})"


def page() -> str:
    """Return the page with its tables renewed."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + tables() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    for case in CASES:
        draw(read_costs(DOCS / "benchmarks" / f"cost_{case}.json"), DOCS / "benchmarks" / f"cost_{case}.png")
