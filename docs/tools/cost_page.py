"""Write the tables of docs/explanation/cost.md from the results of cost_cases.py and cost_scale.py.

PYTHONPATH=tests/support python docs/tools/cost_page.py

It also draws the pictures of the cases.
"""

from __future__ import annotations

from pathlib import Path

import cost_scale
import pandas as pd

from nnunetv2_guidino.lab.cost.cost_report import draw, drifts, read_costs, results, title
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
    table = results(costs).set_index(["measure", "plans", "network"])
    lines = ["| network | step | tile | mirrored | five folds | memory of a step | start |", "|" + "---|" * 7]
    for plans, network in table.loc["step"].index:
        step, tile, image, folds, start = (
            _cell(costs, Key(name, plans, network), table) for name in ("step", "tile", "image", "folds", "start")
        )
        memory = costs.values.get(Key("memory", plans, network))
        cells = (step, tile, image, folds, "–" if memory is None else f"{memory[0]:,.0f} MiB", start)
        lines.append(f"| {plans}, {network} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(costs: Costs, key: Key, table: pd.DataFrame) -> str:
    seconds = costs.values.get(key)
    if seconds is None or drifts(costs, key.measure):
        return "–"
    text = f"{min(seconds):.3g} to {max(seconds):.3g} s"
    ratio, low, high = table.loc[key, ["times_plain", "times_plain_low", "times_plain_high"]]
    if pd.isna(ratio) or key.network == PLAIN:
        return text
    return f"{text}; {ratio:.2f} × ({low:.2f} to {high:.2f})"


def page() -> str:
    """Return the page with its tables renewed."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + tables() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    for case in CASES:
        draw(read_costs(DOCS / "benchmarks" / f"cost_{case}.json"), DOCS / "benchmarks" / f"cost_{case}.png")
